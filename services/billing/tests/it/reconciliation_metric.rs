//! The metric of reconciliation differences.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command},
    time::Duration,
};

use epoch::testkit::free_ports;
use service_host::testkit::SECRET;

use crate::{reconciliation_accounts::billed_customer, reconciliation_report::damage, support::Billing};

/// A billing process that runs projections and checks but serves no API.
struct CheckProcess {
    process: Child,
    address: SocketAddr,
}

impl CheckProcess {
    fn start(billing: &Billing) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_ports()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_billing"));
        command.args(["project", "--bus", "postgres", "--listen", &address.to_string()]);
        command.env("CATACLOUD_LOG", "off").env("CATACLOUD_SECRET", SECRET);
        command.env("DATABASE_URL", billing.service.database.url());
        Self { process: command.spawn().unwrap(), address }
    }

    /// Reads a gauge or counter from `/metrics`. Returns `None` as long as the series does not exist.
    async fn metric(&self, series: &str) -> Option<String> {
        let (address, series) = (self.address, series.to_owned());
        let read = move || {
            let mut connection = TcpStream::connect(address).ok()?;
            connection.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
            let request = "GET /metrics HTTP/1.1\r\nhost: billing\r\nconnection: close\r\n\r\n";
            connection.write_all(request.as_bytes()).ok()?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).ok()?;
            answer.lines().find_map(|line| line.strip_prefix(&series)?.strip_prefix(' ').map(str::to_owned))
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    async fn wait_for_differences(&self, billing: &Billing, side: &str, value: &str) {
        let series = format!("billing_reconciliation_differences{{side=\"{side}\"}}");
        let reached = async || (self.metric(&series).await.as_deref() == Some(value)).then_some(());
        billing.service.eventually(reached).await;
    }
}

impl Drop for CheckProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn metric_counts_differences_by_side() {
    let billing = billed_customer().await;
    let process = CheckProcess::start(&billing);
    for side in ["sums", "accounts"] {
        process.wait_for_differences(&billing, side, "0").await;
    }
    damage(&billing, "update invoices set number = number + 100 where number is not null").await;
    damage(&billing, "update machine_types set name = 'other'").await;
    process.wait_for_differences(&billing, "accounts", "3").await;
    process.wait_for_differences(&billing, "sums", "1").await;
    let different = "billing_reconciliation_checks_total{side=\"accounts\",result=\"different\"}";
    let counted = async || process.metric(different).await.filter(|count| count != "0");
    billing.service.eventually(counted).await;
    damage(&billing, "update invoices set number = number - 100 where number is not null").await;
    damage(&billing, "update machine_types set name = 'default'").await;
    for side in ["sums", "accounts"] {
        process.wait_for_differences(&billing, side, "0").await;
    }
    billing.service.close().await;
}
