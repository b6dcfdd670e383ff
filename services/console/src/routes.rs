//! The table of what is behind the door, and the way through.
//!
//! The problem: one address for many services, some of whose routes are not for the public.
//!
//! The invariant: what isn't in the table is 404. A request goes on only with a caller that was authenticated here and
//! without headers that could be taken for one; its path is the one that was matched. An answer must begin within
//! [`ANSWER_LIMIT`], except where the request has a body of any length.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::HttpBody,
    extract::{Request, State},
    http::Method,
    response::{IntoResponse, Response},
    routing::any,
};
use service_kit::{Caller, Problem, server};

use crate::{
    Upstream, Upstreams,
    gateway::{Door, continue_trace},
    headers::{clean_request, clean_response},
};

/// Longer than the services give themselves, so that it is their answer which is heard.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);

const ORGANIZATIONS: &str = "/api/v1/organizations";

/// What is beneath an organization and doesn't belong to the organization service.
const RESOURCES: [(&str, Target); 9] = [
    ("job-configurations", Target::Job),
    ("jobs", Target::Job),
    ("uploads", Target::Upload),
    ("files", Target::File),
    ("usage", Target::Billing),
    ("costs", Target::Billing),
    ("account", Target::Billing),
    ("budget", Target::Billing),
    ("invoices", Target::Billing),
];

/// What operators do with billing, beneath `/api/v1/admin`.
const BILLING_ADMIN: [&str; 5] =
    ["plans", "simulations", "metering", "organizations/{org}/account", "organizations/{org}/invoices"];

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Organization,
    Job,
    /// The file service's uploads: bodies of any length, and clients that ask what is possible before they have a key.
    Upload,
    File,
    Billing,
}

impl Target {
    fn upstream(self, upstreams: &Upstreams) -> &Upstream {
        match self {
            Target::Organization => &upstreams.organization,
            Target::Job => &upstreams.job,
            Target::Upload | Target::File => &upstreams.file,
            Target::Billing => &upstreams.billing,
        }
    }
}

/// The routes to the services.
pub(crate) fn routes() -> Router<Arc<Door>> {
    let to =
        |target: Target| any(async move |State(door): State<Arc<Door>>, request| pass(&door, target, request).await);
    let mut router = Router::new()
        .route(ORGANIZATIONS, to(Target::Organization))
        .route(&format!("{ORGANIZATIONS}/{{org}}"), to(Target::Organization))
        .route(&format!("{ORGANIZATIONS}/{{org}}/{{*rest}}"), to(Target::Organization));
    for (name, target) in RESOURCES {
        let resource = format!("{ORGANIZATIONS}/{{org}}/{name}");
        router = router.route(&resource, to(target)).route(&format!("{resource}/{{*rest}}"), to(target));
    }
    for name in BILLING_ADMIN {
        let resource = format!("/api/v1/admin/{name}");
        router = router.route(&resource, to(Target::Billing));
        router = router.route(&format!("{resource}/{{*rest}}"), to(Target::Billing));
    }
    router.layer(server::streaming())
}

async fn pass(door: &Door, target: Target, mut request: Request) -> Response {
    if let Err(problem) = admit(door, target, &mut request).await {
        return problem.into_response();
    }
    let upstream = target.upstream(&door.upstreams);
    let may_take_long = target == Target::Upload && !request.body().is_end_stream();
    let answer = match may_take_long {
        true => upstream.send(request).await,
        false => upstream.send_within(ANSWER_LIMIT, request).await,
    };
    match answer {
        Ok(mut response) => {
            clean_response(response.headers_mut());
            response
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

/// Lets a request in: from here on its headers are the door's.
async fn admit(door: &Door, target: Target, request: &mut Request) -> Result<(), Problem> {
    // A tus client asks what the server can do before anything else; the answer is the same for everybody.
    let is_tus_discovery = target == Target::Upload && request.method() == Method::OPTIONS;
    let caller = match is_tus_discovery {
        true => None,
        false => Some(door.authenticator.caller(request.headers()).await?),
    };
    let headers = request.headers_mut();
    clean_request(headers);
    if let Some(caller) = caller {
        Caller::write_to(&caller, headers, &door.secrets).map_err(Problem::internal)?;
    }
    continue_trace(headers);
    Ok(())
}
