//! The conformance suite of buses.
//!
//! A kind of bus implements [`BusFactory`]; [`bus_conformance!`](crate::bus_conformance) then defines one test per
//! check. The checks do not know which bus they test.

mod checks;
mod conformance;
mod factory;
mod group;
pub mod kit;
mod probe;
mod recorder;

pub use conformance::{
    aggregate_events_arrive_in_order, event_arrives_unchanged, every_subscription_receives_all_events,
    failing_aggregate_does_not_block_others, late_subscription_starts_at_the_first_event, malformed_message_is_skipped,
    rejected_batch_is_redelivered, restarted_subscription_resumes_at_its_position,
    slow_subscription_receives_bounded_batches, unacknowledged_batch_is_redelivered_after_crash,
};
pub use factory::{BusFactory, Factory};
pub use group::group_keeps_order_when_members_change;
pub use probe::AGGREGATE;
pub use recorder::{EventRecorder, Rejected};

/// Defines one test per check of the bus suite.
///
/// The argument is a future of a [`Factory`](crate::testkit::bus::Factory), or of an `Option` of one that is `None`
/// when there is no broker to test against.
#[macro_export]
macro_rules! bus_conformance {
    ($factory:expr) => {
        $crate::bus_conformance! { $factory;
            aggregate_events_arrive_in_order
            event_arrives_unchanged
            every_subscription_receives_all_events
            late_subscription_starts_at_the_first_event
            restarted_subscription_resumes_at_its_position
            rejected_batch_is_redelivered
            unacknowledged_batch_is_redelivered_after_crash
            slow_subscription_receives_bounded_batches
            malformed_message_is_skipped
            failing_aggregate_does_not_block_others
            group_keeps_order_when_members_change
        }
    };
    ($factory:expr; $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                let factory = $factory.await;
                if let Some(factory) = ::std::convert::Into::<Option<$crate::testkit::bus::Factory>>::into(factory) {
                    $crate::testkit::bus::$check(::std::sync::Arc::clone(&factory)).await;
                    factory.close().await;
                }
            }
        )*
    };
}
