//! The router and its OpenAPI document.

use axum::{Router, routing::get};
use http_kit::{Problem, server};
use utoipa::{OpenApi as _, openapi::OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::http::{
    account, admin, budget, costs, explanation, invoices,
    state::Api,
    usage,
    usage_rows::{self, UsageRowsFormat},
};

/// Schemas that no request or response body names: a query parameter refers to the format, and shared responses refer to `Problem`.
#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(Problem, UsageRowsFormat)))]
struct Schemas;

/// Returns the routes and the OpenAPI document of the public ones.
pub fn router(api: Api) -> (Router, OpenApi) {
    let (public, openapi) = public_routes().split_for_parts();
    let internal = Router::new().route("/internal/v1/billing/organizations/{org}/standing", get(budget::get_standing));
    (public.merge(internal).layer(server::bounded()).with_state(api), openapi)
}

fn public_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Schemas::openapi())
        .routes(routes!(usage::get_usage))
        .routes(routes!(usage_rows::list_usage_rows))
        .routes(routes!(costs::get_costs))
        .routes(routes!(admin::reconciliation::get_reconciliation))
        .routes(routes!(account::get_account))
        .routes(routes!(budget::get_budget, budget::set_budget))
        .routes(routes!(invoices::list_invoices))
        .routes(routes!(invoices::get_invoice))
        .routes(routes!(invoices::get_credit_note))
        .routes(routes!(explanation::explain_invoice))
        .routes(routes!(admin::plans::publish_plan, admin::plans::list_plans))
        .routes(routes!(admin::plans::get_plan))
        .routes(routes!(admin::plans::publish_plan_version))
        .routes(routes!(admin::plans::retire_plan))
        .routes(routes!(admin::accounts::open_account))
        .routes(routes!(admin::accounts::change_time_zone))
        .routes(routes!(admin::accounts::assign_plan))
        .routes(routes!(admin::accounts::preview_plan_assignment))
        .routes(routes!(admin::accounts::override_price))
        .routes(routes!(admin::accounts::grant_discount))
        .routes(routes!(admin::accounts::grant_credit))
        .routes(routes!(admin::invoices::finalize_invoice))
        .routes(routes!(admin::invoices::void_invoice))
        .routes(routes!(admin::simulations::simulate_plans))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Map, Value};

    use super::public_routes;

    fn document() -> Value {
        serde_json::to_value(public_routes().split_for_parts().1).unwrap()
    }

    fn operations(document: &Value) -> Vec<&Map<String, Value>> {
        let paths = document["paths"].as_object().unwrap();
        let items = paths.values().flat_map(|item| item.as_object().unwrap().values());
        items.filter_map(Value::as_object).filter(|operation| operation.contains_key("operationId")).collect()
    }

    /// Collects all objects of the document.
    fn objects<'d>(value: &'d Value, found: &mut Vec<&'d Map<String, Value>>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| objects(item, found)),
            Value::Object(object) => {
                found.push(object);
                object.values().for_each(|value| objects(value, found));
            }
            _ => {}
        }
    }

    #[test]
    fn openapi_references_resolve() {
        let document = document();
        let mut found = Vec::new();
        objects(&document, &mut found);
        let references: BTreeSet<&str> =
            found.iter().filter_map(|object| object.get("$ref").and_then(Value::as_str)).collect();
        assert!(references.len() > 20, "{references:?}");
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} does not resolve");
        }
    }

    #[test]
    fn openapi_responses_are_typed_and_described() {
        let document = document();
        for operation in operations(&document) {
            let id = &operation["operationId"];
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{id} {status}");
                let content = response["content"].as_object().unwrap();
                if status.starts_with('2') {
                    let schema = &content["application/json"]["schema"];
                    assert!(schema["$ref"].is_string(), "{id} {status}: {schema}");
                } else {
                    let schema = &content["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{id} {status}");
                }
            }
            for status in ["401", "429"] {
                assert!(operation["responses"][status].is_object(), "{id} {status}");
            }
            for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{id}: {parameter}");
            }
        }
    }

    #[test]
    fn openapi_operation_ids_are_stable() {
        let document = document();
        let ids: BTreeSet<&str> =
            operations(&document).into_iter().map(|operation| operation["operationId"].as_str().unwrap()).collect();
        let expected = [
            "assign_plan",
            "change_time_zone",
            "explain_invoice",
            "finalize_invoice",
            "get_account",
            "get_budget",
            "get_costs",
            "get_credit_note",
            "get_invoice",
            "get_plan",
            "get_reconciliation",
            "get_usage",
            "grant_credit",
            "grant_discount",
            "list_invoices",
            "list_plans",
            "list_usage_rows",
            "open_account",
            "override_price",
            "preview_plan_assignment",
            "publish_plan",
            "publish_plan_version",
            "retire_plan",
            "set_budget",
            "simulate_plans",
            "void_invoice",
        ];
        assert_eq!(ids, BTreeSet::from(expected));
    }

    #[test]
    fn openapi_schemas_are_never_bare_objects() {
        let document = document();
        let mut found = Vec::new();
        objects(&document, &mut found);
        let bare = |object: &&&Map<String, Value>| {
            object.get("type").is_some_and(|kind| kind == "object")
                && !["properties", "additionalProperties", "allOf"].iter().any(|key| object.contains_key(*key))
        };
        let bare: Vec<_> = found.iter().filter(bare).collect();
        assert!(bare.is_empty(), "{bare:?}");
    }
}
