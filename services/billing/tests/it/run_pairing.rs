//! The same starts and ends through `billing rate` and through the service's read model are the same runs.

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
    metering::anomaly::Flagged,
    sharing::rule::Rule,
};
use serde_json::json;
use usage::{
    page::Page,
    queries::{question::Asked, usage::usage},
};
use uuid::Uuid;

use crate::{ledger::Ledger, support::id};

/// 2025-10-26.
const DAY: i64 = 1_761_436_800_000;
const MINUTE: i64 = 60_000;

const BEFORE: &str = "completed_before_started";
const WITHOUT: &str = "completed_without_start";

/// A moment: at which minute, and whether the job starts.
type Moment = (i64, bool);

/// What is asked, in minutes.
#[derive(Debug, Clone, Copy)]
struct Question {
    period: (i64, i64),
    as_of: i64,
    known_at: Option<i64>,
}

/// The whole day, when it is over.
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

/// Run milliseconds, whether something goes on, and flags.
type Answer = (String, bool, Vec<&'static str>);

/// As `billing rate` says.
fn rated(moments: &[Moment], recorded: &[i64], question: Question) -> Answer {
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
    let answer = calculator::answer(document.to_string().as_bytes()).unwrap_or_else(|refused| panic!("{refused}"));
    let compute = serde_json::to_value(answer).unwrap()["compute"].clone();
    let flags = compute["flags"].as_array().unwrap().iter().map(|flag| match flag["flag"].as_str() {
        Some(BEFORE) => BEFORE,
        Some(WITHOUT) => WITHOUT,
        other => panic!("{other:?}"),
    });
    (compute["run_ms"].as_str().unwrap().to_owned(), compute["provisional"].as_bool().unwrap(), flags.collect())
}

/// The service hears of them one by one.
async fn heard(ledger: &mut Ledger, job: Uuid, moments: &[Moment], recorded: &[i64]) {
    let organization_id = ledger.organization;
    for ((minute, starts), recorded) in moments.iter().zip(recorded) {
        let event: JobEvent = match starts {
            true => {
                let (machine_id, user_id, machine_type) = (id(900), Some(id(500)), "default".into());
                JobStarted { organization_id, machine_id, user_id, machine_type }.into()
            }
            false => JobSucceeded { organization_id, exit_code: 0 }.into(),
        };
        let event = ledger.event(job::AGGREGATE, job, at(*minute).as_millis(), at(*recorded).as_millis(), &event);
        ledger.deliver(&[event]).await;
    }
}

/// As the service's read models say.
async fn metered(ledger: &Ledger, question: Question) -> Answer {
    let (start, end) = question.period;
    let window = Window { period: Span::new(at(start), at(end)), as_of: at(question.as_of) };
    let asked = Asked { organization: ledger.organization, window, known_at: question.known_at.map(at) };
    let listed = Page { after: None, limit: 10 };
    let usage = usage(&ledger.pool, asked, Rule::Split, &[window.counted()], listed, listed).await.unwrap();
    let listed: i128 = usage.jobs.items.iter().map(|job| job.run_ms).sum();
    assert_eq!(listed, usage.totals.run_ms[0], "the sums are those of the runs: {question:?}");
    let users: i128 = usage.totals.users.iter().map(|(_, run_ms)| run_ms).sum();
    assert_eq!(users, listed, "users sum to it: {question:?}");
    let flags = usage.odd_jobs.into_iter().map(|Flagged { flag, .. }| flag.as_str()).collect();
    (listed.to_string(), usage.totals.compute_provisional, flags)
}

async fn agree(moments: &[Moment]) -> Answer {
    let mut ledger = Ledger::new().await;
    let recorded = vec![2_000; moments.len()];
    heard(&mut ledger, id(1), moments, &recorded).await;
    let metered = metered(&ledger, DAY_OVER).await;
    assert_eq!(metered, rated(moments, &recorded, DAY_OVER), "{moments:?}");
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

/// An end that is learnt late may end another run than the one that was thought to go on, and give that one back its own.
#[tokio::test]
async fn what_was_known_is_paired_as_it_was_known() {
    let mut ledger = Ledger::new().await;
    let (moments, recorded) = ([(9, false), (10, true), (20, false)], [9, 10, 30]);
    heard(&mut ledger, id(1), &moments, &recorded).await;
    let asked = async |known_at| {
        let question = Question { known_at, ..DAY_OVER };
        let metered = metered(&ledger, question).await;
        assert_eq!(metered, rated(&moments, &recorded, question), "{known_at:?}");
        metered
    };
    let minutes = |count: i64| (count * MINUTE).to_string();
    assert_eq!(asked(Some(9)).await, (minutes(0), false, vec![WITHOUT]));
    assert_eq!(asked(Some(29)).await, (minutes(0), false, vec![BEFORE]), "the first end is that of the start");
    assert_eq!(asked(Some(30)).await, (minutes(10), false, vec![WITHOUT]));
    assert_eq!(asked(None).await, asked(Some(30)).await);
    ledger.close().await;
}

#[tokio::test]
async fn any_starts_and_ends_are_the_same_runs_in_both_whenever_they_were_known() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut ledger = Ledger::new().await;
    for number in 0..40 {
        let stream = vec((0..12_i64, any::<bool>(), 0..15_i64), 1..7);
        let (stream, mut questions) = (stream, vec(question(), 12)).new_tree(&mut runner).unwrap().current();
        let moments: Vec<Moment> = stream.iter().map(|(minute, starts, _)| (*minute, *starts)).collect();
        let recorded: Vec<i64> = stream.iter().map(|(.., recorded)| *recorded).collect();
        ledger.organization = Uuid::now_v7();
        heard(&mut ledger, id(number), &moments, &recorded).await;
        questions.push(DAY_OVER);
        for question in questions {
            let metered = metered(&ledger, question).await;
            assert_eq!(metered, rated(&moments, &recorded, question), "{moments:?} {recorded:?} {question:?}");
        }
    }
    ledger.close().await;
}

/// A page of jobs is not the last one because something on it wasn't known yet.
#[tokio::test]
async fn pages_of_jobs_join_also_where_some_were_not_known_yet() {
    let mut ledger = Ledger::new().await;
    for (number, recorded) in [(1, 9), (2, 1), (3, 9), (4, 1), (5, 1), (6, 9), (7, 1)] {
        heard(&mut ledger, id(number), &[(1, true), (2, false)], &[recorded, recorded]).await;
    }
    let window = Window { period: Span::new(at(0), at(1_440)), as_of: at(1_440) };
    let asked = Asked { organization: ledger.organization, window, known_at: Some(at(5)) };
    let (mut jobs, mut after) = (Vec::new(), None);
    loop {
        let page = Page { after, limit: 2 };
        let usage = usage(&ledger.pool, asked, Rule::Split, &[window.period], page, Page::default()).await.unwrap();
        assert!(usage.jobs.items.len() <= 2, "{:?}", usage.jobs);
        jobs.extend(usage.jobs.items.into_iter().map(|used| used.job));
        after = usage.jobs.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(jobs, [2, 4, 5, 7].map(id));
    ledger.close().await;
}
