//! The `healthcheck` subcommand: calls `/readyz` of the service on this machine, for images without curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use reqwest::StatusCode;

const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    #[error("no response from {address}: {source}")]
    NoResponse { address: SocketAddr, source: reqwest::Error },
    #[error("not ready ({status}): {report}")]
    NotReady { status: StatusCode, report: String },
}

/// Checks that the service on `listen` is ready.
///
/// # Errors
/// [`HealthcheckError`] when it is not ready or does not respond.
pub async fn check(listen: SocketAddr) -> Result<(), HealthcheckError> {
    let address = reachable(listen);
    let no_response = |source| HealthcheckError::NoResponse { address, source };
    let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().map_err(no_response)?;
    let response = client.get(format!("http://{address}/readyz")).send().await.map_err(no_response)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    Err(HealthcheckError::NotReady { status, report: response.text().await.map_err(no_response)? })
}

/// Returns exit code 0 when the service on `listen` is ready. Otherwise prints the reason on standard error and returns 1.
pub async fn healthcheck(listen: SocketAddr) -> ExitCode {
    match check(listen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the address to connect to. A server can listen on an unspecified address, but no client can connect to one.
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
    fn unspecified_address_becomes_loopback() {
        let cases = [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.7:1", "10.0.0.7:1")];
        for (listen, expected) in cases {
            assert_eq!(reachable(listen.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
