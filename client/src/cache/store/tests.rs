//! The store against every state written down.

use proptest::prelude::*;

use super::*;

const KEYS: [&str; 4] = ["a", "ab", "b", "c"];

type State = BTreeMap<Bytes, KeyValue>;

/// A step of the world.
#[derive(Clone, Debug)]
enum Step {
    /// One revision: these keys are written or deleted.
    Change(Vec<(usize, bool)>),
    /// The store hears of everything so far, in pieces or at once, or twice.
    Hear,
    HearAgain,
    /// A revision elsewhere.
    Elsewhere,
    Relist,
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop::collection::vec((0..KEYS.len(), any::<bool>()), 1..3);
    prop_oneof![
        4 => change.prop_map(Step::Change),
        4 => Just(Step::Hear),
        1 => Just(Step::HearAgain),
        1 => Just(Step::Elsewhere),
        1 => Just(Step::Relist),
    ]
}

/// All states and events there ever were, by revision.
struct World {
    states: Vec<State>,
    events: Vec<Vec<Event>>,
}

impl World {
    fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    fn change(&mut self, keys: &[(usize, bool)]) {
        let mut state = self.states[self.states.len() - 1].clone();
        let mod_revision = self.states.len() as i64;
        let mut events = Vec::new();
        let mut seen = Vec::new();
        for &(index, put) in keys {
            let key = Bytes::from(KEYS[index]);
            if seen.contains(&index) || (!put && !state.contains_key(&key)) {
                continue;
            }
            seen.push(index);
            let kv = KeyValue {
                key: key.clone(),
                mod_revision,
                value: mod_revision.to_string().into(),
                ..Default::default()
            };
            let prev_kv = match put {
                true => state.insert(key, kv.clone()),
                false => state.remove(&key),
            };
            let kind = if put {
                EventType::Put
            } else {
                EventType::Delete
            };
            events.push(Event {
                r#type: kind.into(),
                kv: Some(kv),
                prev_kv,
            });
        }
        self.states.push(state);
        self.events.push(events);
    }

    /// As a watch without prev_kv hears it.
    fn heard(&self, from: i64) -> Vec<Event> {
        let events = self.events[from as usize..].iter().flatten().cloned();
        events
            .map(|event| Event {
                prev_kv: None,
                ..event
            })
            .collect()
    }
}

fn of(event: &Event, key: &[u8], end: &[u8]) -> bool {
    contains(key, end, &event.kv.as_ref().expect("a pair").key)
}

proptest! {
    #[test]
    fn it_shows_what_was(steps in prop::collection::vec(step(), 1..60), window in 1_usize..8) {
        let mut world = World {
            states: vec![State::new(), State::new()],
            events: vec![Vec::new(), Vec::new()],
        };
        let mut store = Store::new(window);
        store.reset(Vec::new(), 1);
        // One watcher that looks after each step, one that looks now and then.
        let (mut quick, mut quick_seen) = (2, 2);
        for (index, step) in steps.iter().enumerate() {
            match step {
                Step::Change(keys) => world.change(keys),
                Step::Elsewhere => world.change(&[]),
                Step::Hear => {
                    store.apply(world.heard(store.revision() + 1));
                    store.progress(world.revision());
                }
                Step::HearAgain => store.apply(world.heard(2)),
                Step::Relist => {
                    let now = world.states[world.states.len() - 1].clone();
                    store.reset(now.into_values().collect(), world.revision());
                }
            }
            prop_assert!(store.floor <= store.revision() && store.revision() <= world.revision());
            prop_assert!(store.history.len() <= window);
            for (key, end) in [("a", ""), ("a", "b"), ("\0", "\0"), ("b", "\0")] {
                let (key, end) = (key.as_bytes(), end.as_bytes());
                let then = |at: i64| -> Vec<KeyValue> {
                    let state = world.states[at as usize].values();
                    state.filter(|kv| contains(key, end, &kv.key)).cloned().collect()
                };
                prop_assert_eq!(store.range(key, end, 0), Ok(then(store.revision())));
                for at in 1..=store.revision() {
                    let expected = if at < store.floor { Err(TooOld) } else { Ok(then(at)) };
                    prop_assert_eq!(store.range(key, end, at), expected, "at {}", at);
                }
                let mut next = 1 + index as i64 % (store.revision() + 1);
                let from = next;
                let mut seen = Vec::new();
                let end_of_it = loop {
                    match store.changes(&mut next, |event| of(event, key, end)) {
                        Ok(Some((revision, events))) => {
                            prop_assert!(next > revision);
                            seen.extend(events);
                        }
                        other => break other,
                    }
                };
                if from <= store.floor {
                    prop_assert_eq!(end_of_it, Err(TooOld));
                } else {
                    prop_assert_eq!(end_of_it, Ok(None));
                    let known = &world.events[from as usize..=store.revision() as usize];
                    let wanted = known.iter().flatten().filter(|event| of(event, key, end));
                    prop_assert_eq!(seen, wanted.cloned().collect::<Vec<_>>());
                }
            }
            // Whoever looks at everything in time misses nothing, but at a new beginning.
            match store.changes(&mut quick, |_| true) {
                Ok(Some((revision, _))) => {
                    prop_assert!(revision >= quick_seen);
                    quick_seen = revision + 1;
                }
                Ok(None) => {}
                Err(TooOld) => quick = store.revision() + 1,
            }
        }
    }
}
