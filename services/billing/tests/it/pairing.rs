//! The same starts and ends through `billing rate` and through the service's read model are the same runs.

use billing::{
    domain::{
        Flagged,
        sharing::Rule,
        span::{Span, Window},
    },
    metering::{Asked, usage},
    projections::answer::Page,
    rate,
};
use contracts::job::{self, JobEvent, JobStarted, JobSucceeded};
use epoch::Timestamp;
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::json;
use uuid::Uuid;

use crate::{ledger::Ledger, support::id};

/// 2025-10-26.
const DAY: i64 = 1_761_436_800_000;
const MINUTE: i64 = 60_000;

const BEFORE: &str = "completed_before_started";
const WITHOUT: &str = "completed_without_start";

/// A moment: at which minute, and whether the job starts.
type Moment = (i64, bool);

fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(DAY + minute * MINUTE)
}

/// Run milliseconds, whether something goes on, and flags, as `billing rate` says.
fn rated(moments: &[Moment]) -> (String, bool, Vec<&'static str>) {
    let mut events = Vec::new();
    for (seq, (minute, starts)) in moments.iter().enumerate() {
        let mut event = json!({
            "id": format!("e{seq}"), "occurred_at": at(*minute).to_string(), "seq": seq, "job": "j",
            "type": if *starts { "JobStarted" } else { "JobCompleted" },
        });
        if *starts {
            event["user"] = json!("u");
        }
        events.push(event);
    }
    let document = json!({
        "period": { "start": at(0).to_string(), "end": at(1_440).to_string() }, "as_of": at(1_440).to_string(),
        "events": events,
    });
    let answer = rate::answer(document.to_string().as_bytes()).unwrap_or_else(|refused| panic!("{refused}"));
    let compute = serde_json::to_value(answer).unwrap()["compute"].clone();
    let flags = compute["flags"].as_array().unwrap().iter().map(|flag| match flag["flag"].as_str() {
        Some(BEFORE) => BEFORE,
        Some(WITHOUT) => WITHOUT,
        other => panic!("{other:?}"),
    });
    (compute["run_ms"].as_str().unwrap().to_owned(), compute["provisional"].as_bool().unwrap(), flags.collect())
}

/// The same as the service's read models say.
async fn metered(ledger: &mut Ledger, job: Uuid, moments: &[Moment]) -> (String, bool, Vec<&'static str>) {
    let organization_id = ledger.organization;
    for (minute, starts) in moments {
        let event: JobEvent = match starts {
            true => {
                let (machine_id, user_id, machine_type) = (id(900), Some(id(500)), "default".into());
                JobStarted { organization_id, machine_id, user_id, machine_type }.into()
            }
            false => JobSucceeded { organization_id, exit_code: 0 }.into(),
        };
        let event = ledger.event(job::AGGREGATE, job, at(*minute).as_millis(), at(2_000).as_millis(), &event);
        ledger.deliver(&[event]).await;
    }
    let window = Window { period: Span::new(at(0), at(1_440)), as_of: at(1_440) };
    let asked = Asked { organization: ledger.organization, window, known_at: None };
    let listed = Page { after: None, limit: 10 };
    let usage = usage(&ledger.pool, asked, Rule::Split, &[window.period], listed, listed).await.unwrap();
    let listed: i128 = usage.jobs.items.iter().map(|job| job.run_ms).sum();
    assert_eq!(listed, usage.totals.run_ms[0], "the sums are those of the runs: {moments:?}");
    let flags = usage.odd_jobs.into_iter().map(|Flagged { flag, .. }| flag.as_str()).collect();
    (listed.to_string(), usage.totals.compute_provisional, flags)
}

async fn agree(moments: &[Moment]) -> (String, bool, Vec<&'static str>) {
    let mut ledger = Ledger::new().await;
    let metered = metered(&mut ledger, id(1), moments).await;
    assert_eq!(metered, rated(moments), "{moments:?}");
    ledger.close().await;
    metered
}

#[tokio::test]
async fn an_end_before_its_start_is_one_thing_however_it_is_heard() {
    let minutes = |count: i64| (count * MINUTE).to_string();
    // The start is heard first, or the end is.
    assert_eq!(agree(&[(10, true), (9, false)]).await, (minutes(0), false, vec![BEFORE]));
    assert_eq!(agree(&[(9, false), (10, true)]).await, (minutes(0), false, vec![BEFORE]));
    // An end that is heard last was first, and isn't the end of a run that has one.
    assert_eq!(agree(&[(10, true), (20, false), (9, false)]).await, (minutes(10), false, vec![WITHOUT]));
    assert_eq!(agree(&[(9, false), (10, true), (20, false)]).await, (minutes(10), false, vec![WITHOUT]));
    // An end that is heard late ends the run when it happened.
    assert_eq!(agree(&[(10, true), (20, false), (15, false)]).await, (minutes(5), false, vec![WITHOUT]));
    assert_eq!(agree(&[(10, true), (30, true), (20, false)]).await, (minutes(10 + 1_410), true, vec![]));
}

#[tokio::test]
async fn any_starts_and_ends_are_the_same_runs_in_both() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut ledger = Ledger::new().await;
    for number in 0..40 {
        let moments = vec((0..12_i64, any::<bool>()), 1..7).new_tree(&mut runner).unwrap().current();
        ledger.organization = Uuid::now_v7();
        let metered = metered(&mut ledger, id(number), &moments).await;
        assert_eq!(metered, rated(&moments), "{moments:?}");
    }
    ledger.close().await;
}
