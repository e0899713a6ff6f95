// Package testserver takes the place of the package of the same name in Kubernetes' API server: its
// storage tests then run against a binary, the one that ETCD_BINARY names, instead of the etcd that is
// compiled into them.
package testserver

import (
	"context"
	"net"
	"net/url"
	"os"
	"os/exec"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/embed"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// NewTestConfig gives a member of its own on ports that are free now.
func NewTestConfig(t testing.TB) *embed.Config {
	config := embed.NewConfig()
	config.Dir = t.TempDir()
	client, peer := freeURL(t), freeURL(t)
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	return config
}

func freeURL(t testing.TB) url.URL {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return url.URL{Scheme: "http", Host: listener.Addr().String()}
}

// RunEtcd starts a server for as long as the test runs, and gives a client that is connected to it.
func RunEtcd(t testing.TB, config *embed.Config) *kubernetes.Client {
	t.Helper()
	if config == nil {
		config = NewTestConfig(t)
	}
	server := exec.Command(os.Getenv("ETCD_BINARY"),
		"--name", config.Name,
		"--data-dir", config.Dir,
		"--listen-client-urls", config.ListenClientUrls[0].String(),
		"--advertise-client-urls", config.AdvertiseClientUrls[0].String(),
		"--listen-peer-urls", config.ListenPeerUrls[0].String(),
		"--initial-advertise-peer-urls", config.AdvertisePeerUrls[0].String(),
		"--initial-cluster", config.InitialCluster,
		"--watch-progress-notify-interval", config.WatchProgressNotifyInterval.String(),
		"--unsafe-no-fsync",
		"--log-level", "error",
	)
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})

	endpoint := config.AdvertiseClientUrls[0].String()
	client, err := kubernetes.New(clientv3.Config{
		Endpoints:   []string{endpoint},
		DialTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	// The tests count requests: none may have to be sent again because the server has just been started.
	patience, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if _, err := client.Status(patience, endpoint); err == nil {
			break
		}
		if patience.Err() != nil {
			t.Fatal("the server does not serve")
		}
	}
	recorder := storagetesting.NewKubernetesRecorder(client.Kubernetes)
	client.KV = storagetesting.NewKVRecorder(client.KV, recorder)
	client.Kubernetes = recorder
	return client
}
