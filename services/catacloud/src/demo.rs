//! Demo data, made by commands through the public door like anybody's.
//!
//! The problem: an empty system shows nothing, and rows put into tables by hand show something that can't happen.
//! The invariant: each step has its own `Idempotency-Key`, so that running it again finds what is there.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// Where to make demo data.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The console's address
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The platform administrator's key
    #[arg(long, env = "CATACLOUD_ADMIN_KEY", hide_env_values = true)]
    admin_key: String,
}

/// How long the demo job may take.
const JOB_LIMIT: Duration = Duration::from_secs(60);

struct Door {
    client: Client,
    url: String,
    key: String,
}

impl Door {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let response = self.request(Method::GET, path).send().await?;
        Ok(checked(response, path).await?.json().await?)
    }

    /// A command under its own key; gives the answer.
    async fn command(&self, path: &str, key: &str, body: &Value) -> Result<Value> {
        let request = self.request(Method::POST, path).header("idempotency-key", format!("demo-{key}"));
        let request = if body.is_null() { request } else { request.json(body) };
        Ok(checked(request.send().await?, path).await?.json().await?)
    }
}

async fn checked(response: Response, path: &str) -> Result<Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    bail!("{path}: {status}: {}", response.text().await?)
}

/// Makes an organization, a job configuration, a file and a finished job, and prints what a person needs to go on.
pub(crate) async fn run(args: DemoArgs) -> Result<()> {
    let mut door = Door { client: Client::new(), url: args.url.trim_end_matches('/').to_owned(), key: args.admin_key };
    let organization = json!({ "name": "Demo", "owner": { "email": "demo@example.com", "name": "Demo" } });
    let created = door.command("/api/v1/organizations", "organization", &organization).await?;
    let organization = text(&created, "id")?;
    let base = format!("/api/v1/organizations/{organization}");
    let role = json!({ "name": "demo", "role": "admin" });
    door.key = text(&door.command(&format!("{base}/api-keys"), "api-key", &role).await?, "key")?;
    let configuration = json!({
        "name": "Checksum and size",
        "command": ["sh", "-c", "sha256sum inputs/* > outputs/checksums.txt && wc -l inputs/*"],
        "timeout_ms": 60_000,
    });
    let configuration = door.command(&format!("{base}/job-configurations"), "configuration", &configuration).await?;
    let file = upload(&door, &base).await?;
    let job = json!({
        "job_configuration_id": text(&configuration, "id")?, "name": "First job", "file_ids": [file],
    });
    let job = text(&door.command(&format!("{base}/jobs"), "job", &job).await?, "id")?;
    door.command(&format!("{base}/jobs/{job}/queue"), "queue", &Value::Null).await?;
    let status = finished(&door, &format!("{base}/jobs/{job}")).await?;
    if status != "succeeded" {
        bail!("the demo job {status}");
    }
    println!("organization={organization}\napi_key={}\njob={job}", door.key);
    Ok(())
}

/// A file of a few hundred kilobytes, over the resumable upload protocol.
async fn upload(door: &Door, base: &str) -> Result<String> {
    let content: String = (0..20_000).map(|row| format!("{row},{}\n", (row * 7919) % 1_000)).collect();
    // Base64 of the file's name and type, as the protocol wants them.
    let metadata = "filename bWVhc3VyZW1lbnRzLmNzdg==,filetype dGV4dC9jc3Y=";
    let request = door
        .request(Method::POST, &format!("{base}/uploads"))
        .header("tus-resumable", "1.0.0")
        .header("idempotency-key", "demo-upload")
        .header("upload-length", content.len())
        .header("upload-metadata", metadata);
    let created = checked(request.send().await?, "uploads").await?;
    let location = created.headers().get("location").context("no Location of the upload")?.to_str()?.to_owned();
    let head = door.request(Method::HEAD, &location).header("tus-resumable", "1.0.0").send().await?;
    let head = checked(head, &location).await?;
    let offset: usize = head.headers().get("upload-offset").context("no Upload-Offset")?.to_str()?.parse()?;
    if offset < content.len() {
        let rest = content.get(offset..).unwrap_or_default().to_owned();
        let request = door
            .request(Method::PATCH, &location)
            .header("tus-resumable", "1.0.0")
            .header("content-type", "application/offset+octet-stream")
            .header("upload-offset", offset)
            .body(rest);
        checked(request.send().await?, &location).await?;
    }
    location.rsplit('/').next().map(str::to_owned).context("no id in the upload's Location")
}

async fn finished(door: &Door, path: &str) -> Result<String> {
    let wait = async {
        loop {
            let job = door.get(path).await?;
            let status = text(&job, "status")?;
            if !matches!(status.as_str(), "created" | "queued" | "assigned" | "running") {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(JOB_LIMIT, wait).await.context("the demo job takes too long")?
}

fn text(value: &Value, field: &str) -> Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {value}"))
}
