//! `/`: the status page.
//!
//! The page shows whether each service is ready, and links to the API documentation. It is plain HTML with one
//! stylesheet, both from this binary. States are words, not colors alone, and every value is escaped. The policy
//! forbids all other resources and frames.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http_kit::{html::Escaped, server};

use crate::{
    gateway::Gateway,
    openapi,
    security_headers::set_security_headers,
    service_status::{ServiceState, ServiceStatus},
    swagger_ui,
};

const STYLESHEET_PATH: &str = "/assets/console.css";
const STYLESHEET: &str = include_str!("page/console.css");

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new().route("/", get(page)).route(STYLESHEET_PATH, get(stylesheet)).layer(server::bounded())
}

async fn page(State(gateway): State<Arc<Gateway>>) -> Response {
    let statuses = gateway.statuses.current().await;
    let mut response = Html(render(&statuses, &gateway.runs_on)).into_response();
    let headers = response.headers_mut();
    set_security_headers(headers, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn stylesheet() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, STYLESHEET).into_response()
}

fn render(statuses: &[ServiceStatus], runs_on: &[(String, String)]) -> String {
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Catacloud</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{STYLESHEET_PATH}">
</head>
<body>
<header>
<h1>Catacloud</h1>
<p>Files, the jobs that process them, and the cost of both.</p>
</header>
<main>
<section aria-labelledby="services">
<h2 id="services">Services</h2>
<p><strong>{summary}</strong> <a href="/">Refresh</a></p>
<table>
<thead><tr><th scope="col">Service</th><th scope="col">State</th><th scope="col">Checks</th></tr></thead>
<tbody>
{services}</tbody>
</table>
</section>
<section aria-labelledby="runs-on">
<h2 id="runs-on">Runs on</h2>
<dl>
{runs_on}</dl>
</section>
<section aria-labelledby="api">
<h2 id="api">API</h2>
<ul>
<li><a href="{docs}">Interactive API documentation</a></li>
<li><a href="{openapi}">OpenAPI 3.1 document</a> for client generators</li>
</ul>
</section>
</main>
</body>
</html>
"#,
        summary = summary(statuses),
        services = statuses.iter().map(service_row).collect::<String>(),
        runs_on = definition_list(runs_on),
        docs = swagger_ui::PATH,
        openapi = openapi::PATH,
    )
}

fn summary(statuses: &[ServiceStatus]) -> String {
    let ready = statuses.iter().filter(|status| status.state == ServiceState::Ready).count();
    if ready == statuses.len() {
        return "All services are ready.".to_owned();
    }
    format!("{ready} of {} services are ready.", statuses.len())
}

fn service_row(status: &ServiceStatus) -> String {
    let (class, state) = match status.state {
        ServiceState::Ready => ("good", "ready"),
        ServiceState::NotReady => ("bad", "not ready"),
        ServiceState::Unreachable => ("bad", "no answer"),
    };
    let mut checks = String::new();
    for check in &status.checks {
        let separator = if checks.is_empty() { "" } else { ", " };
        let (name, outcome) = (Escaped(&check.name), if check.ok { "" } else { " (failing)" });
        // Writing to a string cannot fail.
        let _ = write!(checks, "{separator}{name}{outcome}");
    }
    let name = Escaped(status.name);
    format!("<tr><th scope=\"row\">{name}</th><td class=\"{class}\">{state}</td><td>{checks}</td></tr>\n")
}

fn definition_list(pairs: &[(String, String)]) -> String {
    let version = ("Version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let mut list = String::new();
    for (name, value) in pairs.iter().chain([&version]) {
        let _ = writeln!(list, "<dt>{}</dt><dd>{}</dd>", Escaped(name), Escaped(value));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::service_status::{ServiceCheck, ServiceState, ServiceStatus};

    #[test]
    fn page_names_state_of_each_service() {
        let check = |name: &str, ok| ServiceCheck { name: name.to_owned(), ok };
        let statuses = [
            ServiceStatus { name: "job", state: ServiceState::Ready, checks: vec![check("job-database", true)] },
            ServiceStatus {
                name: "file",
                state: ServiceState::NotReady,
                checks: vec![check("a", true), check("b", false)],
            },
            ServiceStatus { name: "billing", state: ServiceState::Unreachable, checks: Vec::new() },
        ];
        let html = render(&statuses, &[]);
        assert!(html.contains("1 of 3 services are ready."));
        assert!(html.contains("<th scope=\"row\">job</th><td class=\"good\">ready</td><td>job-database</td>"));
        assert!(html.contains("<th scope=\"row\">file</th><td class=\"bad\">not ready</td><td>a, b (failing)</td>"));
        assert!(html.contains("<th scope=\"row\">billing</th><td class=\"bad\">no answer</td><td></td>"));
        assert!(render(&statuses[..1], &[]).contains("All services are ready."));
    }

    #[test]
    fn values_are_escaped() {
        let pair = ("<b>Bus</b>".to_owned(), "\"Kafka\" & 'more'".to_owned());
        let html = render(&[], &[pair]);
        assert!(html.contains("<dt>&lt;b&gt;Bus&lt;/b&gt;</dt><dd>&quot;Kafka&quot; &amp; &#39;more&#39;</dd>"));
    }
}
