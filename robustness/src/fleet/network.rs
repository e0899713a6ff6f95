//! A network for a fleet: a namespace for each member, joined by a bridge on which the clients are.
//! What one member sends to another can be thrown away, each direction for itself. Needs root and
//! iproute2.
//!
//! A cut is an entry in the sender's table of neighbours with an address that nobody has: packets
//! leave and do not arrive, and nobody is told. Clients reach every member all the time.

use std::process::Command;

use anyhow::{Context, bail};

/// Nobody's address.
const NOBODY: &str = "02:00:00:00:00:99";
/// The interface of a member, in its namespace.
const INTERFACE: &str = "eth0";

/// The network. Dropping it removes all of it.
#[derive(Debug)]
pub struct Network {
    /// Tells the names from those of another run.
    tag: u32,
    size: usize,
}

impl Network {
    /// A network for `size` members.
    ///
    /// # Errors
    /// It cannot be set up, for instance without the right to.
    pub fn new(size: usize) -> anyhow::Result<Self> {
        let tag = std::process::id();
        let network = Self { tag, size };
        let bridge = network.bridge();
        let own = network.host(253);
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", &format!("{own}/24"), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for at in 0..size {
            let (namespace, link) = (network.namespace(at), network.link(at));
            let host = format!("{}/24", network.host(at));
            ip(&["netns", "add", &namespace])?;
            let pair = ["type", "veth", "peer", "name", INTERFACE, "netns"];
            ip(&[&["link", "add", &link][..], &pair, &[&namespace]].concat())?;
            ip(&["link", "set", &link, "master", &bridge, "up"])?;
            let inside = ["-n", &namespace];
            ip(&[&inside[..], &["address", "add", &host, "dev", INTERFACE]].concat())?;
            for interface in [INTERFACE, "lo"] {
                ip(&[&inside[..], &["link", "set", interface, "up"]].concat())?;
            }
        }
        Ok(network)
    }

    /// The namespace of a member.
    pub fn namespace(&self, at: usize) -> String {
        format!("ferrite-{}-{at}", self.tag)
    }

    /// The address of a member.
    pub fn host(&self, at: usize) -> String {
        let [.., high, low] = self.tag.to_be_bytes();
        format!("10.{}.{low}.{}", 192 + high % 64, at + 1)
    }

    /// From now on nothing that `from` sends to `to` arrives.
    ///
    /// # Errors
    /// iproute2 refuses.
    pub fn cut(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let (namespace, host) = (self.namespace(from), self.host(to));
        let entry = ["lladdr", NOBODY, "nud", "permanent", "dev", INTERFACE];
        ip(&[
            &["-n", &namespace, "neighbour", "replace", &host][..],
            &entry,
        ]
        .concat())
    }

    /// What `from` sends to `to` arrives again.
    ///
    /// # Errors
    /// iproute2 refuses.
    pub fn heal(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let (namespace, host) = (self.namespace(from), self.host(to));
        let inside = ["-n", &namespace, "neighbour", "delete"];
        ip(&[&inside[..], &[&host, "dev", INTERFACE]].concat())
    }

    fn bridge(&self) -> String {
        format!("fe{}", self.tag)
    }

    fn link(&self, at: usize) -> String {
        format!("fe{}-{at}", self.tag)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Whatever of it was set up.
        for at in 0..self.size {
            ip(&["link", "delete", &self.link(at)]).ok();
            ip(&["netns", "delete", &self.namespace(at)]).ok();
        }
        if let Err(error) = ip(&["link", "delete", &self.bridge()]) {
            eprintln!("cannot remove the network: {error:#}");
        }
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args).output();
    let output = output.context("cannot run ip, of iproute2")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", args.join(" "), why.trim());
    }
    Ok(())
}
