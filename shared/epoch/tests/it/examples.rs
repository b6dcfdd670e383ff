//! The in-memory examples produce their documented results.

use epoch::Version;

#[path = "../../examples/bank.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod bank;

#[path = "../../examples/evolution.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod evolution;

#[tokio::test]
async fn bank_executes_a_repeated_command_once() {
    assert_eq!(bank::run().await.unwrap(), (70, Version::new(2)));
}

#[tokio::test]
async fn purse_sums_events_of_all_shapes() {
    assert_eq!(evolution::run().await.unwrap(), (1_234 + 500 - 500 + 600 + 1, Version::new(5)));
}
