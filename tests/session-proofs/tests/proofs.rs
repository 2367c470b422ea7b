//! A few seeds of the proof; `cargo xtask sessions` plays 10,000.

#[test]
fn sessions_survive_power_cuts() {
    let mut cuts = 0;
    for seed in 0..40 {
        let met =
            session_proofs::run::run(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        cuts += met.cuts;
    }
    assert!(cuts > 40, "only {cuts} cuts: the proof proves nothing");
}
