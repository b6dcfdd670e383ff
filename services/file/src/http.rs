//! HTTP routes of the file service.

mod content;
mod files;
mod parameters;
mod problem;
mod state;
mod tus;
mod uploads;

use axum::middleware;
use http_kit::server;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use state::HttpState;

pub(crate) fn routes() -> OpenApiRouter<HttpState> {
    let uploads = OpenApiRouter::new()
        .routes(routes!(uploads::create_upload, uploads::describe_uploads))
        .routes(routes!(uploads::get_upload_offset, uploads::append_to_upload, uploads::abort_upload))
        .layer(middleware::from_fn(tus::negotiate_version))
        .layer(server::streaming());
    let content = OpenApiRouter::new().routes(routes!(content::get_file_content)).layer(server::streaming());
    let files = OpenApiRouter::new()
        .routes(routes!(files::list_files))
        .routes(routes!(files::get_file, files::delete_file))
        .layer(server::bounded());
    uploads.merge(content).merge(files)
}
