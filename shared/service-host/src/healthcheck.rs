//! `healthcheck`: asks the service on this machine whether it is ready, for images that hold no curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use reqwest::StatusCode;

const LIMIT: Duration = Duration::from_secs(5);

/// Why the service is not ready.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// Nobody answers.
    #[error("no answer from {address}: {source}")]
    NoAnswer {
        /// Who was asked.
        address: SocketAddr,
        /// What was seen.
        source: reqwest::Error,
    },
    /// The service says that it isn't ready.
    #[error("not ready ({status}): {report}")]
    NotReady {
        /// The answer's status.
        status: StatusCode,
        /// The answer's body.
        report: String,
    },
}

/// Asks `GET /readyz` of the service that listens on `listen`.
///
/// # Errors
/// [`HealthcheckError`] when it isn't ready or doesn't answer.
pub async fn check(listen: SocketAddr) -> Result<(), HealthcheckError> {
    let address = reachable(listen);
    let no_answer = |source| HealthcheckError::NoAnswer { address, source };
    let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().map_err(no_answer)?;
    let response = client.get(format!("http://{address}/readyz")).send().await.map_err(no_answer)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    Err(HealthcheckError::NotReady { status, report: response.text().await.map_err(no_answer)? })
}

/// The `healthcheck` subcommand: 0 when the service on `listen` is ready, else 1 with the reason on standard error.
pub async fn healthcheck(listen: SocketAddr) -> ExitCode {
    match check(listen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// "All addresses" can be listened on but not connected to.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn asks_an_address_that_can_be_connected_to() {
        let cases = [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.7:1", "10.0.0.7:1")];
        for (listen, asked) in cases {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
