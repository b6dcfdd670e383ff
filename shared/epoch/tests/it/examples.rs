//! The examples in memory come to what they say.

use epoch::Version;

#[path = "../../examples/bank.rs"]
#[allow(dead_code, reason = "its main isn't called")]
mod bank;

#[path = "../../examples/evolution.rs"]
#[allow(dead_code, reason = "its main isn't called")]
mod evolution;

#[tokio::test]
async fn the_bank_counts_a_repeated_command_once() {
    assert_eq!(bank::run().await.unwrap(), (70, Version::new(2)));
}

#[tokio::test]
async fn the_purse_has_what_all_its_past_comes_to() {
    assert_eq!(evolution::run().await.unwrap(), (1_234 + 500 - 500 + 600 + 1, Version::new(5)));
}
