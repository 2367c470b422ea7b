//! The corpus once more, and inputs that are made from it: the same on every run.

use std::path::Path;

use mqtt_proofs::random::Random;
use mqtt_proofs::{TARGETS, Target};

const RANDOM_INPUTS: usize = 20_000;

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("a folder that can be read").path())
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file that can be read")).collect()
}

#[test]
fn the_corpus_breaks_no_promise() {
    for target in TARGETS {
        let inputs = corpus(target);
        assert!(inputs.len() >= 10, "{} has a corpus", target.name);
        for input in inputs {
            (target.run)(&input);
        }
    }
}

#[test]
fn random_inputs_break_no_promise() {
    for target in TARGETS {
        let inputs = corpus(target);
        let mut random = Random::seeded(1);
        for _ in 0..RANDOM_INPUTS {
            let input = random.input(&inputs, target.input_bytes_max);
            (target.run)(&input);
        }
    }
}
