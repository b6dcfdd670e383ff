//! Runs the file service as a separate process.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_host::cli::run::<file::FileService>().await
}
