//! The cluster simulation, a short version of what `sim` runs for hours: a batch of seeds, the same seed
//! twice, and bugs put in on purpose.

use ferrite_robustness::cluster::counts::Counts;
use ferrite_robustness::cluster::mutant::Mutant;
use ferrite_robustness::cluster::run;

/// Seeds of the batch.
const SEEDS: u64 = 60;

/// What a batch must have seen, and how often at least: otherwise it proves little.
const SEEN: [(&str, u64); 21] = [
    ("acknowledged", 10_000),
    ("reads checked", 5_000),
    ("revisions", 5_000),
    ("unacknowledged writes", 20),
    ("expired keys", 20),
    ("states compared", 5_000),
    ("elections", 150),
    ("starts", 400),
    ("messages lost", 5_000),
    ("crashes", 50),
    ("crashes in the middle of a write", 20),
    ("power losses", 50),
    ("blackouts", 20),
    ("pauses", 50),
    ("isolations", 50),
    ("splits", 50),
    ("one-way cuts", 50),
    ("flaps", 50),
    ("clogs", 50),
    ("slow disks", 50),
    ("transfers", 5),
];

/// Seeds within which a mutant must be found.
const MUTANT_SEEDS: u64 = 100;

#[test]
fn seeds_pass_and_see_everything() {
    let mut counts = Counts::default();
    for seed in 0..SEEDS {
        match run(seed, None, false) {
            Ok(report) => counts.merge(&report.counts),
            Err(violation) => panic!(
                "seed {seed}: {}\n{}",
                violation.reason,
                violation.trace.join("\n")
            ),
        }
    }
    for (name, least) in SEEN {
        let seen = counts.get(name);
        assert!(seen >= least, "{name}: {seen}, expected {least}: {counts}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut digests = Vec::new();
    for seed in [3, 14, 15, 92] {
        let (first, second) = (run(seed, None, false), run(seed, None, false));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first, second, "seed {seed}");
        digests.push(first.digest);
    }
    digests.dedup();
    assert_eq!(digests.len(), 4, "different seeds give different runs");
}

#[test]
fn every_mutant_is_found() {
    for mutant in Mutant::ALL {
        let found = (0..MUTANT_SEEDS).find(|seed| run(*seed, Some(mutant), false).is_err());
        assert!(
            found.is_some(),
            "{mutant} lives through {MUTANT_SEEDS} seeds"
        );
    }
}
