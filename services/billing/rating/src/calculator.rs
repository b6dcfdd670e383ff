//! The offline calculator `billing rate`: from a document of events and plans to usage and an invoice,
//! without a database or a broker.
//!
//! Customers and support use it to price past usage under another plan. It parses a document ([`input`]),
//! orders its events ([`history`]), calls the same rating functions as the service, and writes a report
//! ([`output`]).
//!
//! The report is a function of the document alone: events may come in any order and repeatedly. An invalid
//! document is rejected as a whole, with one line that names the place, exit status 2 and an empty standard
//! output.

mod history;
mod input;
mod output;

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use crate::{
    calendar::day::days,
    metering::{
        anomaly::{Anomaly, AnomalyKind},
        compute::{JobRun, compute_usage},
        level::{LevelChange, areas, level_at},
        pairing::{Moment, pair_moments},
        run::Run,
        storage::{FileUsage, StorageByFile},
    },
    rating::{rate::rate, term::terms, usage_amounts::UsageAmounts},
    sharing::{
        rule::SharingRules,
        shares::{FileSpanUsage, shares},
    },
    validation::InvalidInput,
};
use history::{History, JobMoment};
use input::{Input, RatingRequest};
use output::RatingReport;

/// The maximum length of a document, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// The exit status for an invalid document.
const INVALID_INPUT: u8 = 2;

/// Arguments of `billing rate`.
#[derive(Debug, Args)]
pub struct RateArgs {
    /// The JSON document of events and plans; `-` reads standard input
    #[arg(long, value_name = "FILE|-")]
    input: PathBuf,
}

/// Runs `billing rate`.
#[must_use]
pub fn run(args: &RateArgs) -> ExitCode {
    let calculate = match read(&args.input).and_then(|document| calculate(&document)) {
        Ok(calculate) => calculate,
        Err(error) => {
            // Names and values from the document may contain line breaks, but the message must be one line.
            eprintln!("{}", error.to_string().replace(char::is_control, " "));
            return ExitCode::from(INVALID_INPUT);
        }
    };
    let mut stdout = BufWriter::new(io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut stdout, &calculate).map_err(io::Error::from);
    match written.and_then(|()| writeln!(stdout)).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, InvalidInput> {
    let invalid = |error: io::Error| InvalidInput::new(path.display().to_string(), error);
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(path).map_err(invalid)?),
    };
    let mut document = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut document).map_err(invalid)?;
    if document.len() as u64 > MAX_BYTES {
        return Err(InvalidInput::new(path.display().to_string(), format!("is longer than {MAX_BYTES} bytes")));
    }
    Ok(document)
}

/// Calculates the usage and the invoice of a document.
///
/// # Errors
/// [`InvalidInput`] with the place in the document.
pub fn calculate(document: &[u8]) -> Result<RatingReport, InvalidInput> {
    let input = Input::read(document)?;
    let request = input.request()?;
    let history = input.history()?;
    let RatingRequest { window, zone, subscriptions, adjustments } = &request;
    let days = days(window.period, zone).map_err(|error| InvalidInput::new("period", error))?;
    let terms = terms(window.period, subscriptions);

    let mut runs = Vec::new();
    for (job, moments) in &history.jobs {
        for pair in pair_moments(moments.iter().copied()) {
            let user = pair.last_start.and_then(|start| start.user);
            let at = |moment: Option<JobMoment<'_>>| moment.map(|moment| moment.at());
            runs.push(JobRun { job: *job, user, run: Run { started_at: at(pair.started), ended_at: at(pair.ended) } });
        }
    }
    let compute = compute_usage(&runs, *window, &days);
    let (storage, changes) = file_storage(&history, &request, &SharingRules::of(&terms));
    let counted = window.counted();
    let stored_on = areas(&changes, days.iter().map(|day| day.span.intersect(counted)));

    let spans = || terms.iter().map(|term| term.span.intersect(counted));
    let running: Vec<_> = runs.iter().filter_map(|run| run.run.level_changes(window.as_of)).flatten().collect();
    let metered = areas(&changes, spans()).into_iter().zip(areas(&running, spans()));
    let metered = metered.map(|(byte_ms, run_ms)| UsageAmounts::of(byte_ms, run_ms));
    let usage: Vec<_> = terms.iter().cloned().zip(metered).collect();
    let invoice = rate(&usage, adjustments).map_err(input::invalid_rating)?;
    let rated = usage.iter().fold(UsageAmounts::default(), |sum, (_, metered)| sum.plus(metered));
    let unrated = UsageAmounts::of(storage.byte_ms, compute.run_ms).minus(&rated);
    Ok(RatingReport::new(
        &storage,
        &days.into_iter().zip(stored_on).collect::<Vec<_>>(),
        &compute,
        invoice.as_ref(),
        &unrated,
    ))
}

/// Sums up storage by file, and collects every level change.
fn file_storage<'d>(
    history: &History<'d>,
    request: &RatingRequest,
    rules: &SharingRules,
) -> (StorageByFile<&'d str, &'d str>, Vec<LevelChange>) {
    let window = request.window;
    let counted = window.counted();
    // As in the service, a job without a known creator counts as a user of its own.
    let user = |job: &&'d str| history.user(job, window.as_of).ok_or(*job);
    let mut storage = StorageByFile::default();
    let mut all = Vec::new();
    for (id, file) in &history.files {
        let levels = file.levels();
        storage.provisional |= window.may_be_provisional() && level_at(&levels, window.as_of) != 0;
        all.extend(levels);
        if file.deleted_while_absent.iter().any(|at| counted.start() <= *at && *at < counted.end()) {
            storage.anomalies.push(Anomaly { kind: AnomalyKind::NegativeLevel, id: *id });
        }
        let (FileSpanUsage { byte_ms, unattributed_byte_ms, stored, .. }, jobs) =
            shares(&file.changes, &[counted], rules, user).total();
        storage.byte_ms += byte_ms;
        if stored {
            storage.files.push(FileUsage { file: *id, byte_ms, unattributed_byte_ms, jobs });
        }
    }
    (storage, all)
}
