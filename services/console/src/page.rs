//! `/`: what runs here, for people.
//!
//! The problem: whoever has just started an installation wants to see in one place whether it works and where to go on.
//!
//! The invariant: the page is plain HTML and one stylesheet of its own, both from this binary; a state is said in words, not
//! in colour alone; every text is escaped; the browser is told to load nothing else and to show it in no frame.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use service_kit::{html::Escaped, server};

use crate::{
    docs,
    gateway::Door,
    openapi,
    service_status::{ServiceStatus, State as ServiceState},
};

const STYLESHEET_PATH: &str = "/assets/console.css";
const STYLESHEET: &str = include_str!("page/console.css");

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The page's routes.
pub(crate) fn routes() -> Router<Arc<Door>> {
    Router::new().route("/", get(page)).route(STYLESHEET_PATH, get(stylesheet)).layer(server::bounded())
}

/// Tells the browser what a page may do.
pub(crate) fn protected(headers: &mut HeaderMap, policy: HeaderValue) {
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    let others = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in others {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

async fn page(State(door): State<Arc<Door>>) -> Response {
    let statuses = door.statuses.now().await;
    let mut response = Html(render(&statuses, &door.runs_on)).into_response();
    let headers = response.headers_mut();
    protected(headers, HeaderValue::from_static(POLICY));
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
<p>Files, the jobs that run on them, and what both cost.</p>
</header>
<main>
<section aria-labelledby="services">
<h2 id="services">Services</h2>
<p><strong>{summary}</strong> <a href="/">Ask again</a></p>
<table>
<thead><tr><th scope="col">Service</th><th scope="col">State</th><th scope="col">Parts</th></tr></thead>
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
<li><a href="{docs}">Documentation of the API</a>, to read and to try</li>
<li><a href="{openapi}">OpenAPI 3.1 document</a>, for generators</li>
</ul>
</section>
</main>
</body>
</html>
"#,
        summary = summary(statuses),
        services = statuses.iter().map(row).collect::<String>(),
        runs_on = definitions(runs_on),
        docs = docs::PATH,
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

fn row(status: &ServiceStatus) -> String {
    let (class, state) = match status.state {
        ServiceState::Ready => ("good", "ready"),
        ServiceState::NotReady => ("bad", "not ready"),
        ServiceState::NoAnswer => ("bad", "no answer"),
    };
    let mut parts = String::new();
    for part in &status.parts {
        let separator = if parts.is_empty() { "" } else { ", " };
        let (name, outcome) = (Escaped(&part.name), if part.ok { "" } else { " (failing)" });
        // Writing to a string can't fail.
        let _ = write!(parts, "{separator}{name}{outcome}");
    }
    let name = Escaped(status.name);
    format!("<tr><th scope=\"row\">{name}</th><td class=\"{class}\">{state}</td><td>{parts}</td></tr>\n")
}

fn definitions(pairs: &[(String, String)]) -> String {
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
    use crate::service_status::{Part, ServiceStatus, State};

    #[test]
    fn says_in_words_how_each_service_is() {
        let part = |name: &str, ok| Part { name: name.to_owned(), ok };
        let statuses = [
            ServiceStatus { name: "job", state: State::Ready, parts: vec![part("job-database", true)] },
            ServiceStatus { name: "file", state: State::NotReady, parts: vec![part("a", true), part("b", false)] },
            ServiceStatus { name: "billing", state: State::NoAnswer, parts: Vec::new() },
        ];
        let html = render(&statuses, &[]);
        assert!(html.contains("1 of 3 services are ready."));
        assert!(html.contains("<th scope=\"row\">job</th><td class=\"good\">ready</td><td>job-database</td>"));
        assert!(html.contains("<th scope=\"row\">file</th><td class=\"bad\">not ready</td><td>a, b (failing)</td>"));
        assert!(html.contains("<th scope=\"row\">billing</th><td class=\"bad\">no answer</td><td></td>"));
        assert!(render(&statuses[..1], &[]).contains("All services are ready."));
    }

    #[test]
    fn texts_are_only_texts() {
        let pair = ("<b>Bus</b>".to_owned(), "\"Kafka\" & 'more'".to_owned());
        let html = render(&[], &[pair]);
        assert!(html.contains("<dt>&lt;b&gt;Bus&lt;/b&gt;</dt><dd>&quot;Kafka&quot; &amp; &#39;more&#39;</dd>"));
    }
}
