//! Pairing of starts and ends into runs: `billing rate` and the read model of the service agree.

use contracts::job::{self, JobEvent, JobStarted, JobSucceeded};
use epoch::Timestamp;
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rating::{
    calculator,
    calendar::span::{Span, Window},
    metering::anomaly::Anomaly,
    sharing::rule::SharingRule,
};
use serde_json::json;
use usage::{
    page::Page,
    queries::{usage::usage, usage_query::UsageQuery},
};
use uuid::Uuid;

use crate::{read_models::ReadModels, support::id};

/// 2025-10-26T00:00:00Z.
const DAY: i64 = 1_761_436_800_000;
const MINUTE: i64 = 60_000;

const END_BEFORE_START: &str = "completed_before_started";
const END_WITHOUT_START: &str = "completed_without_start";

/// The minute of a moment, and whether it is a start.
type Moment = (i64, bool);

/// Parameters of a query, in minutes.
#[derive(Debug, Clone, Copy)]
struct Question {
    period: (i64, i64),
    as_of: i64,
    known_at: Option<i64>,
}

/// The whole day, as of its end.
const DAY_OVER: Question = Question { period: (0, 1_440), as_of: 1_440, known_at: None };

fn question() -> impl Strategy<Value = Question> {
    let known_at = prop_oneof![1 => Just(None), 3 => (-1..16_i64).prop_map(Some)];
    (0..7_i64, 0..8_i64, 0..15_i64, known_at).prop_map(|(start, length, as_of, known_at)| Question {
        period: (start, start + length),
        as_of,
        known_at,
    })
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(DAY + minute * MINUTE)
}

/// Run milliseconds, whether they are provisional, and anomalies.
type RunUsage = (String, bool, Vec<&'static str>);

/// Computes the usage with the calculator of `billing rate`.
fn rate_usage(moments: &[Moment], recorded: &[i64], question: Question) -> RunUsage {
    let mut events = Vec::new();
    for (seq, ((minute, starts), recorded)) in moments.iter().zip(recorded).enumerate() {
        let mut event = json!({
            "id": format!("e{seq}"), "occurred_at": at(*minute).to_string(), "seq": seq, "job": "j",
            "recorded_at": at(*recorded).to_string(), "type": if *starts { "JobStarted" } else { "JobCompleted" },
        });
        if *starts {
            event["user"] = json!("u");
        }
        events.push(event);
    }
    let (start, end) = question.period;
    let mut document = json!({
        "period": { "start": at(start).to_string(), "end": at(end).to_string() },
        "as_of": at(question.as_of).to_string(), "events": events,
    });
    if let Some(known_at) = question.known_at {
        document["known_at"] = json!(at(known_at).to_string());
    }
    let answer = calculator::calculate(document.to_string().as_bytes()).unwrap_or_else(|refused| panic!("{refused}"));
    let compute = serde_json::to_value(answer).unwrap()["compute"].clone();
    let flags = compute["flags"].as_array().unwrap().iter().map(|flag| match flag["flag"].as_str() {
        Some(END_BEFORE_START) => END_BEFORE_START,
        Some(END_WITHOUT_START) => END_WITHOUT_START,
        other => panic!("{other:?}"),
    });
    (compute["run_ms"].as_str().unwrap().to_owned(), compute["provisional"].as_bool().unwrap(), flags.collect())
}

/// Delivers the moments to the read model one by one.
async fn deliver(read_models: &mut ReadModels, job: Uuid, moments: &[Moment], recorded: &[i64]) {
    let organization_id = read_models.organization;
    for ((minute, starts), recorded) in moments.iter().zip(recorded) {
        let event: JobEvent = match starts {
            true => {
                let (machine_id, user_id, machine_type) = (id(900), Some(id(500)), "default".into());
                JobStarted { organization_id, machine_id, user_id, machine_type }.into()
            }
            false => JobSucceeded { organization_id, exit_code: 0 }.into(),
        };
        let event = read_models.event(job::AGGREGATE, job, at(*minute).as_millis(), at(*recorded).as_millis(), &event);
        read_models.deliver(&[event]).await;
    }
}

/// Reads the usage from the read models.
async fn read_usage(read_models: &ReadModels, question: Question) -> RunUsage {
    let (start, end) = question.period;
    let window = Window { period: Span::new(at(start), at(end)), as_of: at(question.as_of) };
    let usage_query =
        UsageQuery { organization: read_models.organization, window, known_at: question.known_at.map(at) };
    let listed = Page { after: None, limit: 10 };
    let usage =
        usage(&read_models.pool, usage_query, SharingRule::Split, &[window.counted()], listed, listed).await.unwrap();
    let listed: i128 = usage.jobs.items.iter().map(|job| job.run_ms).sum();
    assert_eq!(listed, usage.totals.run_ms[0], "the total equals the sum of the runs: {question:?}");
    let users: i128 = usage.totals.users.iter().map(|(_, run_ms)| run_ms).sum();
    assert_eq!(users, listed, "users sum to the total: {question:?}");
    let flags = usage.job_anomalies.into_iter().map(|Anomaly { kind, .. }| kind.as_str()).collect();
    (listed.to_string(), usage.totals.compute_provisional, flags)
}

/// Computes the usage of a day both ways, and asserts that they agree.
async fn day_usage(moments: &[Moment]) -> RunUsage {
    let mut read_models = ReadModels::new().await;
    let recorded = vec![2_000; moments.len()];
    deliver(&mut read_models, id(1), moments, &recorded).await;
    let from_read_model = read_usage(&read_models, DAY_OVER).await;
    assert_eq!(from_read_model, rate_usage(moments, &recorded, DAY_OVER), "{moments:?}");
    read_models.close().await;
    from_read_model
}

#[tokio::test]
async fn end_before_start_is_one_anomaly_in_any_delivery_order() {
    let minutes = |count: i64| (count * MINUTE).to_string();
    // The start is delivered first, then the end is.
    assert_eq!(day_usage(&[(10, true), (9, false)]).await, (minutes(0), false, vec![END_BEFORE_START]));
    assert_eq!(day_usage(&[(9, false), (10, true)]).await, (minutes(0), false, vec![END_BEFORE_START]));
    // An end that occurred before the start is not the end of the run, in any delivery order.
    assert_eq!(day_usage(&[(10, true), (20, false), (9, false)]).await, (minutes(10), false, vec![END_WITHOUT_START]));
    assert_eq!(day_usage(&[(9, false), (10, true), (20, false)]).await, (minutes(10), false, vec![END_WITHOUT_START]));
    // A late end ends the run at its own instant.
    assert_eq!(day_usage(&[(10, true), (20, false), (15, false)]).await, (minutes(5), false, vec![END_WITHOUT_START]));
    assert_eq!(day_usage(&[(10, true), (30, true), (20, false)]).await, (minutes(10 + 1_410), true, vec![]));
}

/// A late end is paired with the open run. The earlier end, until then paired with that run, is left without a start.
#[tokio::test]
async fn known_at_pairs_runs_by_events_known_then() {
    let mut read_models = ReadModels::new().await;
    let (moments, recorded) = ([(9, false), (10, true), (20, false)], [9, 10, 30]);
    deliver(&mut read_models, id(1), &moments, &recorded).await;
    let usage_known_at = async |known_at| {
        let question = Question { known_at, ..DAY_OVER };
        let from_read_model = read_usage(&read_models, question).await;
        assert_eq!(from_read_model, rate_usage(&moments, &recorded, question), "{known_at:?}");
        from_read_model
    };
    let minutes = |count: i64| (count * MINUTE).to_string();
    assert_eq!(usage_known_at(Some(9)).await, (minutes(0), false, vec![END_WITHOUT_START]));
    assert_eq!(
        usage_known_at(Some(29)).await,
        (minutes(0), false, vec![END_BEFORE_START]),
        "the start is paired with the first end"
    );
    assert_eq!(usage_known_at(Some(30)).await, (minutes(10), false, vec![END_WITHOUT_START]));
    assert_eq!(usage_known_at(None).await, usage_known_at(Some(30)).await);
    read_models.close().await;
}

#[tokio::test]
async fn read_model_runs_match_rate_for_any_starts_and_ends() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut read_models = ReadModels::new().await;
    for number in 0..40 {
        let stream = vec((0..12_i64, any::<bool>(), 0..15_i64), 1..7);
        let (stream, mut questions) = (stream, vec(question(), 12)).new_tree(&mut runner).unwrap().current();
        let moments: Vec<Moment> = stream.iter().map(|(minute, starts, _)| (*minute, *starts)).collect();
        let recorded: Vec<i64> = stream.iter().map(|(.., recorded)| *recorded).collect();
        read_models.organization = Uuid::now_v7();
        deliver(&mut read_models, id(number), &moments, &recorded).await;
        questions.push(DAY_OVER);
        for question in questions {
            let from_read_model = read_usage(&read_models, question).await;
            assert_eq!(
                from_read_model,
                rate_usage(&moments, &recorded, question),
                "{moments:?} {recorded:?} {question:?}"
            );
        }
    }
    read_models.close().await;
}

/// A page that is short because of unknown jobs must not end the pagination.
#[tokio::test]
async fn job_pages_join_when_some_jobs_are_not_yet_known() {
    let mut read_models = ReadModels::new().await;
    for (number, recorded) in [(1, 9), (2, 1), (3, 9), (4, 1), (5, 1), (6, 9), (7, 1)] {
        deliver(&mut read_models, id(number), &[(1, true), (2, false)], &[recorded, recorded]).await;
    }
    let window = Window { period: Span::new(at(0), at(1_440)), as_of: at(1_440) };
    let usage_query = UsageQuery { organization: read_models.organization, window, known_at: Some(at(5)) };
    let (mut jobs, mut after) = (Vec::new(), None);
    loop {
        let page = Page { after, limit: 2 };
        let usage = usage(&read_models.pool, usage_query, SharingRule::Split, &[window.period], page, Page::default())
            .await
            .unwrap();
        assert!(usage.jobs.items.len() <= 2, "{:?}", usage.jobs);
        jobs.extend(usage.jobs.items.into_iter().map(|used| used.job));
        after = usage.jobs.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(jobs, [2, 4, 5, 7].map(id));
    read_models.close().await;
}
