//! A minimal HTTP client, as a fresh Debian has no curl.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(5);
/// `HTTP/1.1 200`.
const STATUS_LINE_PREFIX: usize = 12;

/// Returns whether `GET path` on this machine's `port` is answered with 200.
pub(crate) fn is_ok(port: u16, path: &str) -> bool {
    status(port, path).is_some_and(|status| status == "200")
}

fn status(port: u16, path: &str) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut start = [0; STATUS_LINE_PREFIX];
    stream.read_exact(&mut start).ok()?;
    let start = String::from_utf8_lossy(&start).into_owned();
    start.split(' ').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::is_ok;

    #[test]
    fn only_status_200_is_ok() {
        for (answer, expected) in [("HTTP/1.1 200 OK", true), ("HTTP/1.1 503 Service Unavailable", false), ("", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 16];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                request
            });
            assert_eq!(is_ok(port, "/readyz"), expected, "{answer:?}");
            assert_eq!(&server.join().unwrap(), b"GET /readyz HTTP");
        }
    }
}
