//! The file service as a process of its own.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_host::cli::run::<file::FileService>().await
}
