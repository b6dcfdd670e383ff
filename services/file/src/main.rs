//! The file service as a process of its own.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_kit::cli::run::<file::FileService>().await
}
