//! Sessions, locks, elections and transactions in memory over real connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrite_client::concurrency::{
    Election, Isolation, Mutex, RecipeError, Session, SessionOptions,
};
use ferrite_client::{
    Client, Config, DeleteOptions, Error, EtcdError, GetOptions, LeaseId, PutOptions, Txn, TxnOp,
};
use ferrite_fake::Fake;

async fn client_of(fake: &Fake) -> Client {
    Client::connect(Config::new([fake.endpoint()]))
        .await
        .expect("a valid configuration")
}

async fn session(client: &Client) -> Session {
    Session::open(client, SessionOptions::new().ttl(30))
        .await
        .expect("a session")
}

fn refused<T>(result: Result<T, Error>) -> RecipeError {
    match result {
        Err(Error::Recipe(error)) => error,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Waits until so many keys wait below a name.
async fn queue_of(client: &Client, name: &str, length: i64) {
    let all = GetOptions::new().prefix().count_only();
    loop {
        let found = client.get(format!("{name}/"), all.clone()).await;
        if found.expect("get").count == length {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_session_lives_until_it_is_closed_or_lost() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let closed = session(&client).await;
    assert_eq!(fake.leases(), [closed.lease().get()]);
    assert!(!closed.is_done());
    closed.close().await.expect("closed");
    assert_eq!(fake.leases(), [0i64; 0]);

    let orphaned = session(&client).await;
    let lease = orphaned.lease();
    orphaned.orphan();
    let resumed = SessionOptions::new().lease(lease);
    let resumed = Session::open(&client, resumed).await.expect("a session");
    assert_eq!(fake.leases(), [lease.get()]);
    resumed.close().await.expect("closed");

    let gone = SessionOptions::new().lease(LeaseId::new(12345));
    let gone = Session::open(&client, gone).await.expect("told later");
    let error = gone.done().await;
    assert_eq!(error.etcd(), Some(EtcdError::LeaseNotFound));
    assert!(gone.is_done());
}

#[tokio::test]
async fn a_lock_goes_from_owner_to_owner_in_order() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let (first, second, third) = (
        session(&client).await,
        session(&client).await,
        session(&client).await,
    );
    let mut owner = Mutex::new(&first, "lock");
    owner.lock().await.expect("free");
    let key = format!("lock/{:x}", first.lease().get());
    assert_eq!(owner.key(), key);

    let mut waiting = Mutex::new(&second, "lock");
    let waiting = tokio::spawn(async move {
        waiting.lock().await.expect("in turn");
        waiting
    });
    queue_of(&client, "lock", 2).await;
    let mut last = Mutex::new(&third, "lock");
    let last = tokio::spawn(async move {
        last.lock().await.expect("in turn");
        last
    });
    queue_of(&client, "lock", 3).await;

    assert!(!waiting.is_finished() && !last.is_finished());
    let first_fence = owner.revision().expect("locked");
    owner.unlock().await.expect("ours");
    assert_eq!(refused(owner.unlock().await), RecipeError::LockReleased);
    let mut waiting = waiting.await.expect("no panic");
    assert!(!last.is_finished());
    let second_fence = waiting.revision().expect("locked");
    assert!(second_fence > first_fence);
    let released = waiting.header().expect("a header").revision;
    assert!(released > second_fence);

    // A guard holds for the owner only.
    let guarded = |mutex: &Mutex| {
        let put = TxnOp::put("k", "v", PutOptions::new());
        Txn::new().when([mutex.is_owner()]).and_then([put])
    };
    let ours = client.txn(guarded(&waiting)).await.expect("txn");
    assert!(ours.succeeded);
    let not_ours = client.txn(guarded(&owner)).await.expect("txn");
    assert!(!not_ours.succeeded);
    waiting.unlock().await.expect("ours");
    last.await.expect("no panic").unlock().await.expect("ours");
    queue_of(&client, "lock", 0).await;
}

#[tokio::test]
async fn trying_leaves_nothing_behind() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let (first, second) = (session(&client).await, session(&client).await);
    let mut owner = Mutex::new(&first, "lock");
    owner.try_lock().await.expect("free");
    let mut other = Mutex::new(&second, "lock");
    assert_eq!(refused(other.try_lock().await), RecipeError::Locked);
    queue_of(&client, "lock", 1).await;
    assert_eq!(refused(other.unlock().await), RecipeError::LockReleased);
    // The lock is the session's: another handle has it, too.
    let mut again = Mutex::new(&first, "lock");
    again.lock().await.expect("ours already");
    assert_eq!(again.revision(), owner.revision());
}

#[tokio::test]
async fn a_lost_session_does_not_get_the_lock() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let (first, second) = (session(&client).await, session(&client).await);
    let mut owner = Mutex::new(&first, "lock");
    owner.lock().await.expect("free");
    let mut waiting = Mutex::new(&second, "lock");
    let waiting = tokio::spawn(async move { waiting.lock().await });
    queue_of(&client, "lock", 2).await;
    fake.expire(second.lease().get());
    queue_of(&client, "lock", 1).await;
    owner.unlock().await.expect("ours");
    let result = waiting.await.expect("no panic");
    assert_eq!(refused(result), RecipeError::SessionExpired);
}

#[tokio::test]
async fn a_key_taken_away_is_no_lock() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let (first, second) = (session(&client).await, session(&client).await);
    let mut owner = Mutex::new(&first, "lock");
    owner.lock().await.expect("free");
    let key = format!("lock/{:x}", second.lease().get());
    let mut waiting = Mutex::new(&second, "lock");
    let waiting = tokio::spawn(async move { waiting.lock().await });
    queue_of(&client, "lock", 2).await;
    client
        .delete(key, DeleteOptions::new())
        .await
        .expect("gone");
    owner.unlock().await.expect("ours");
    let result = waiting.await.expect("no panic");
    assert_eq!(refused(result), RecipeError::SessionExpired);
}

#[tokio::test]
async fn a_dropped_wait_keeps_its_place_until_it_is_given_up() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let (first, second) = (session(&client).await, session(&client).await);
    let mut owner = Mutex::new(&first, "lock");
    owner.lock().await.expect("free");
    let mut waiting = Mutex::new(&second, "lock");
    tokio::select! {
        biased;
        _ = waiting.lock() => panic!("not free"),
        () = queue_of(&client, "lock", 2) => {}
    }
    waiting.unlock().await.expect("the place is given up");
    queue_of(&client, "lock", 1).await;
}

#[tokio::test]
async fn one_at_a_time_whatever_the_crowd() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let inside = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (client, inside) = (client.clone(), inside.clone());
        tasks.push(tokio::spawn(async move {
            let session = session(&client).await;
            let mut mutex = Mutex::new(&session, "crowd");
            for _ in 0..5 {
                mutex.lock().await.expect("in turn");
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                client.put("k", "v", PutOptions::new()).await.expect("put");
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                mutex.unlock().await.expect("ours");
            }
            session.close().await.expect("closed");
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
}

#[tokio::test]
async fn candidates_lead_one_after_the_other() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let (first, second) = (session(&client).await, session(&client).await);
    let mut leader = Election::new(&first, "e");
    assert_eq!(refused(leader.leader().await), RecipeError::NoLeader);
    assert_eq!(refused(leader.proclaim("x").await), RecipeError::NotLeader);
    leader.resign().await.expect("nothing to do");
    let mut observer = leader.observe();

    leader.campaign("one").await.expect("elected");
    let mut next = Election::new(&second, "e");
    let candidate = tokio::spawn(async move {
        next.campaign("two").await.expect("elected");
        next
    });
    queue_of(&client, "e", 2).await;
    let seen = leader.leader().await.expect("a leader").kv.expect("a pair");
    assert_eq!((seen.key, seen.value), (leader.key(), "one".into()));
    leader.proclaim("uno").await.expect("still leads");
    // Standing again changes what is said.
    leader.campaign("eins").await.expect("leads already");
    assert!(!candidate.is_finished());
    leader.resign().await.expect("resigned");
    let mut next = candidate.await.expect("no panic");
    assert!(next.revision() > Some(2));
    next.proclaim("dos").await.expect("leads");

    let mut said = Vec::new();
    while said.last().map(String::as_str) != Some("dos") {
        let kv = observer.next().await.expect("a leader").kv.expect("a pair");
        said.push(String::from_utf8(kv.value.to_vec()).expect("text"));
    }
    let order = ["one", "uno", "eins", "two", "dos"];
    let mut rest = order.iter();
    for value in &said {
        assert!(rest.any(|next| next == value), "{said:?}");
    }
}

#[tokio::test]
async fn an_observer_sees_every_value_of_one_leader() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let session = session(&client).await;
    let mut leader = Election::new(&session, "e");
    leader.campaign("0").await.expect("elected");
    let mut observer = leader.observe();
    let mut revision = 0;
    for round in 0..4 {
        if round > 0 {
            leader.proclaim(round.to_string()).await.expect("leads");
        }
        let response = observer.next().await.expect("a leader");
        let kv = response.kv.expect("a pair");
        assert_eq!(
            (kv.value, kv.version),
            (round.to_string().into(), round + 1)
        );
        let header = response.header.expect("a header");
        assert!(header.revision > revision);
        revision = header.revision;
    }
}

#[tokio::test]
async fn an_existing_key_of_a_longer_name_does_not_lead() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    client
        .put("testa", "x", PutOptions::new())
        .await
        .expect("put");
    let session = session(&client).await;
    let mut election = Election::new(&session, "test");
    election.campaign("me").await.expect("elected");
}

#[tokio::test]
async fn a_candidacy_can_be_resumed_and_resigned() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let session = session(&client).await;
    let mut election = Election::new(&session, "e");
    election.campaign("me").await.expect("elected");
    let revision = election.revision().expect("leads");
    let mut resumed = Election::resume(&session, "e", election.key(), revision);
    resumed.proclaim("still me").await.expect("leads");
    resumed.resign().await.expect("resigned");
    assert_eq!(
        refused(election.proclaim("?").await),
        RecipeError::NotLeader
    );
}

#[tokio::test]
async fn a_candidate_whose_lease_ends_is_not_elected() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let (first, second) = (session(&client).await, session(&client).await);
    let mut leader = Election::new(&first, "e");
    leader.campaign("one").await.expect("elected");
    let mut late = Election::new(&second, "e");
    let late = tokio::spawn(async move { late.campaign("two").await });
    queue_of(&client, "e", 2).await;
    fake.expire(second.lease().get());
    leader.resign().await.expect("resigned");
    let result = late.await.expect("no panic");
    assert_eq!(refused(result), RecipeError::NotLeader);
}

#[tokio::test]
async fn transactions_in_memory_lose_no_update() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let mut tasks = Vec::new();
    for isolation in [
        Isolation::SerializableSnapshot,
        Isolation::Serializable,
        Isolation::RepeatableReads,
    ] {
        for _ in 0..3 {
            let client = client.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..5 {
                    let added = client.stm(isolation, async |stm| {
                        let count = stm.get("count").await?.unwrap_or_default();
                        let count = String::from_utf8_lossy(&count).parse().unwrap_or(0u32);
                        stm.put("count", (count + 1).to_string());
                        assert_eq!(
                            stm.get("count").await?,
                            Some((count + 1).to_string().into())
                        );
                        Ok::<_, Error>(count + 1)
                    });
                    added.await.expect("committed");
                }
            }));
        }
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    let found = client.get("count", GetOptions::new()).await.expect("get");
    assert_eq!(found.kvs[0].value, "45");
}

#[tokio::test]
async fn a_transaction_that_gives_up_writes_nothing() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let result = client.stm(Isolation::default(), async |stm| {
        stm.put("k", "v");
        assert_eq!(stm.revision("k").await?, 0);
        stm.delete("k");
        Err::<(), Error>(Error::Etcd(EtcdError::PermissionDenied))
    });
    assert!(result.await.is_err());
    let found = client.get("k", GetOptions::new()).await.expect("get");
    assert!(found.kvs.is_empty());
}

#[tokio::test]
async fn the_server_can_lock() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let lease = LeaseId::new(client.leases().grant(60).await.expect("granted").id);
    let locks = client.lock_service();
    let locked = locks.lock("name", lease).await.expect("free");
    assert_eq!(locked.key, format!("name/{:x}", lease.get()));
    locks.unlock(locked.key).await.expect("ours");
    queue_of(&client, "name", 0).await;

    // Errors of the recipe have lost their code and keep their text.
    let error = locks
        .lock("name", LeaseId::new(99))
        .await
        .expect_err("no lease");
    assert_eq!(error.etcd(), Some(EtcdError::LeaseNotFound));
    let error = locks.unlock("").await.expect_err("no key");
    assert_eq!(error.etcd(), Some(EtcdError::EmptyKey));
}

#[tokio::test]
async fn the_server_can_hold_elections() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    let lease = LeaseId::new(client.leases().grant(60).await.expect("granted").id);
    let elections = client.election_service();
    assert_eq!(refused(elections.leader("e").await), RecipeError::NoLeader);
    // The server does not say a word before someone leads.
    let mut leaders = elections.observe("e");
    let observed = tokio::spawn(async move { (leaders.next().await, leaders.next().await) });

    let elected = elections.campaign("e", lease, "one").await.expect("free");
    let leader = elected.leader.expect("its key");
    let (first, end) = observed.await.expect("no panic");
    let seen = first.expect("a leader").expect("not the end");
    assert_eq!(seen.kv.expect("a pair").value, "one");
    assert!(end.expect("no error").is_none());

    elections
        .proclaim(leader.clone(), "two")
        .await
        .expect("leads");
    let found = elections.leader("e").await.expect("a leader");
    assert_eq!(found.kv.expect("a pair").value, "two");
    elections.resign(leader.clone()).await.expect("resigned");
    let late = elections.proclaim(leader, "three").await;
    assert_eq!(refused(late), RecipeError::NotLeader);
}

#[tokio::test]
async fn a_failed_stream_of_leaders_has_ended() {
    let fake = Fake::start(1);
    let client = client_of(&fake).await;
    fake.fail_with([EtcdError::PermissionDenied.into()]);
    let mut leaders = client.election_service().observe("e");
    let error = leaders.next().await.expect_err("refused");
    assert_eq!(error.etcd(), Some(EtcdError::PermissionDenied));
    assert!(leaders.next().await.expect("the end").is_none());
}
