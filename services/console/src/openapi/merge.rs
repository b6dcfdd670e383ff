//! Many OpenAPI documents as one.
//!
//! The problem: services name their schemas and operations without knowing of each other, and the same name may mean
//! different things.
//!
//! The invariant: a component that means the same in two documents is there once; one that means something else, be it only
//! through what it refers to, gets the name `<service>.<name>`, and so do the references to it. No two operations have the
//! same id. Internal routes are left out. Every operation needs the bearer's key unless its service said otherwise.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// The name of the security scheme.
const SCHEME: &str = "api_key";

/// A place below `components`: section and name.
type Component = (String, String);

/// The services' documents as one; `missing` names the services whose documents could not be had.
pub(super) fn merged(parts: Vec<(&str, Value)>, missing: &[&str]) -> Value {
    let mut whole = Whole::default();
    for (service, mut part) in parts {
        whole.add(service, &mut part);
    }
    whole.finish(missing)
}

#[derive(Default)]
struct Whole {
    paths: Map<String, Value>,
    components: BTreeMap<String, Map<String, Value>>,
    tags: Vec<Value>,
    operation_ids: BTreeSet<String>,
}

impl Whole {
    fn add(&mut self, service: &str, part: &mut Value) {
        let mut components = components_of(part);
        let renamed = self.renamed(service, &components);
        let mut paths = taken(part, "paths");
        for item in paths.values_mut().chain(components.values_mut()) {
            redirect(item, &renamed);
        }
        for (component, value) in components {
            let name = renamed.get(&component).unwrap_or(&component.1).clone();
            self.components.entry(component.0).or_default().insert(name, value);
        }
        for (path, mut item) in paths {
            if path.starts_with("/internal/") {
                continue;
            }
            for operation in operations_of(&mut item) {
                self.name(service, operation);
            }
            match self.paths.get_mut(&path).and_then(Value::as_object_mut) {
                // Two services may share a path with different methods.
                Some(present) => present.extend(item.as_object().cloned().unwrap_or_default()),
                None => drop(self.paths.insert(path, item)),
            }
        }
        for tag in part["tags"].as_array().into_iter().flatten() {
            if !self.tags.iter().any(|present| present["name"] == tag["name"]) {
                self.tags.push(tag.clone());
            }
        }
    }

    /// New names for the components whose names are taken by something else.
    fn renamed(&self, service: &str, components: &BTreeMap<Component, Value>) -> BTreeMap<Component, String> {
        let mut renamed = BTreeMap::new();
        loop {
            let mut more = Vec::new();
            for (component, value) in components {
                let present = self.components.get(&component.0).and_then(|section| section.get(&component.1));
                let Some(present) = present.filter(|_| !renamed.contains_key(component)) else { continue };
                let mut redirected = value.clone();
                redirect(&mut redirected, &renamed);
                if redirected != *present {
                    more.push(component.clone());
                }
            }
            if more.is_empty() {
                return renamed;
            }
            // What refers to these now means something else too.
            for component in more {
                let name = format!("{service}.{}", component.1);
                renamed.insert(component, name);
            }
        }
    }

    /// Gives an operation an id of its own, and a tag to be found by.
    fn name(&mut self, service: &str, operation: &mut Map<String, Value>) {
        if let Some(id) = operation.get("operationId").and_then(Value::as_str) {
            let mut unique = id.to_owned();
            let mut attempt = 1;
            while !self.operation_ids.insert(unique.clone()) {
                unique = if attempt == 1 { format!("{service}_{id}") } else { format!("{service}_{id}_{attempt}") };
                attempt += 1;
            }
            operation.insert("operationId".to_owned(), unique.into());
        }
        let has_tags = operation.get("tags").and_then(Value::as_array).is_some_and(|tags| !tags.is_empty());
        if !has_tags {
            operation.insert("tags".to_owned(), json!([service]));
        }
    }

    fn finish(mut self, missing: &[&str]) -> Value {
        let scheme = json!({
            "type": "http",
            "scheme": "bearer",
            "description": "An organization's API key (cat_…), or the operator's key.",
        });
        self.components.entry("securitySchemes".to_owned()).or_default().insert(SCHEME.to_owned(), scheme);
        let mut description = "Files, the jobs that run on them, and what both cost.".to_owned();
        if !missing.is_empty() {
            description.push_str(&format!(" Not described, since it can't be asked now: {}.", missing.join(", ")));
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Catacloud",
                "description": description,
                "version": env!("CARGO_PKG_VERSION"),
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "paths": self.paths,
            "components": self.components,
            "tags": self.tags,
            "security": [{ SCHEME: [] }],
        })
    }
}

/// All components but the security schemes, which are the door's.
fn components_of(document: &mut Value) -> BTreeMap<Component, Value> {
    let mut all = BTreeMap::new();
    for (section, components) in taken(document, "components") {
        let Value::Object(components) = components else { continue };
        if section == "securitySchemes" {
            continue;
        }
        for (name, value) in components {
            all.insert((section.clone(), name), value);
        }
    }
    all
}

fn taken(document: &mut Value, key: &str) -> Map<String, Value> {
    match document.get_mut(key).map(Value::take) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn operations_of(path_item: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
    let items = path_item.as_object_mut().into_iter().flatten();
    items.filter(|(key, _)| METHODS.contains(&key.as_str())).filter_map(|(_, operation)| operation.as_object_mut())
}

/// Points every reference in `value` to a renamed component at its new name.
fn redirect(value: &mut Value, renamed: &BTreeMap<Component, String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, renamed)),
        Value::Object(map) => {
            for (key, item) in map {
                match (key.as_str(), &mut *item) {
                    ("$ref", Value::String(reference)) => redirect_reference(reference, renamed),
                    // A discriminator's mapping holds references as plain texts.
                    ("mapping", Value::Object(mapping)) => {
                        for target in mapping.values_mut() {
                            if let Value::String(reference) = target {
                                redirect_reference(reference, renamed);
                            } else {
                                redirect(target, renamed);
                            }
                        }
                    }
                    _ => redirect(item, renamed),
                }
            }
        }
        _ => {}
    }
}

fn redirect_reference(reference: &mut String, renamed: &BTreeMap<Component, String>) {
    let Some(place) = reference.strip_prefix("#/components/") else { return };
    let Some((section, name)) = place.split_once('/') else { return };
    if let Some(name) = renamed.get(&(section.to_owned(), name.to_owned())) {
        *reference = format!("#/components/{section}/{name}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::merged;

    fn service(path: &str, operation: &str, schemas: Value) -> Value {
        let content = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Answer" } } });
        json!({
            "openapi": "3.1.0",
            "info": { "title": "a service", "version": "0" },
            "paths": { path: { "get": { "operationId": operation, "responses": { "200": { "content": content } } } } },
            "components": { "schemas": schemas },
        })
    }

    fn answer_of<'a>(document: &'a Value, path: &str) -> &'a Value {
        &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    }

    #[test]
    fn the_same_component_is_there_once() {
        let schemas = json!({ "Answer": { "type": "string" } });
        let whole =
            merged(vec![("job", service("/a", "a", schemas.clone())), ("file", service("/b", "b", schemas))], &[]);
        assert_eq!(whole["components"]["schemas"].as_object().unwrap().len(), 1);
        assert_eq!(answer_of(&whole, "/a"), "#/components/schemas/Answer");
        assert_eq!(answer_of(&whole, "/b"), "#/components/schemas/Answer");
    }

    #[test]
    fn another_component_of_the_same_name_gets_a_name_of_its_own() {
        let job = json!({ "Answer": { "type": "string" } });
        let file = json!({ "Answer": { "type": "integer" } });
        let whole = merged(vec![("job", service("/a", "a", job)), ("file", service("/b", "b", file))], &[]);
        assert_eq!(whole["components"]["schemas"]["Answer"], json!({ "type": "string" }));
        assert_eq!(whole["components"]["schemas"]["file.Answer"], json!({ "type": "integer" }));
        assert_eq!(answer_of(&whole, "/a"), "#/components/schemas/Answer");
        assert_eq!(answer_of(&whole, "/b"), "#/components/schemas/file.Answer");
    }

    #[test]
    fn a_component_that_refers_to_another_one_is_another_one() {
        let answer = json!({ "type": "array", "items": { "$ref": "#/components/schemas/Item" } });
        let job = json!({ "Answer": answer, "Item": { "type": "string" } });
        let file = json!({ "Answer": answer, "Item": { "type": "integer" } });
        let whole = merged(vec![("job", service("/a", "a", job)), ("file", service("/b", "b", file))], &[]);
        assert_eq!(answer_of(&whole, "/b"), "#/components/schemas/file.Answer");
        let items = &whole["components"]["schemas"]["file.Answer"]["items"]["$ref"];
        assert_eq!(items, "#/components/schemas/file.Item");
        assert_eq!(whole["components"]["schemas"]["Answer"]["items"]["$ref"], "#/components/schemas/Item");
    }

    #[test]
    fn a_component_that_refers_to_itself_stays_one() {
        let tree = json!({ "Answer": { "items": { "$ref": "#/components/schemas/Answer" } } });
        let whole = merged(vec![("job", service("/a", "a", tree.clone())), ("file", service("/b", "b", tree))], &[]);
        assert_eq!(whole["components"]["schemas"].as_object().unwrap().len(), 1);
    }

    #[test]
    fn operations_have_ids_of_their_own_and_a_tag() {
        let part = |path| service(path, "list", json!({}));
        let whole = merged(vec![("job", part("/a")), ("file", part("/b")), ("file", part("/c"))], &[]);
        let ids = ["/a", "/b", "/c"].map(|path| whole["paths"][path]["get"]["operationId"].as_str().unwrap());
        assert_eq!(ids, ["list", "file_list", "file_list_2"]);
        assert_eq!(whole["paths"]["/b"]["get"]["tags"], json!(["file"]));
    }

    #[test]
    fn internal_routes_are_nobody_s_business() {
        let parts = vec![
            ("job", service("/internal/v1/job/claims", "claim", json!({}))),
            ("file", service("/b", "b", json!({}))),
        ];
        let whole = merged(parts, &[]);
        assert_eq!(whole["paths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["/b"]);
    }

    #[test]
    fn says_what_it_doesn_t_describe_and_survives_nonsense() {
        let whole = merged(
            vec![("job", json!([1])), ("file", json!({ "paths": 3, "components": { "schemas": 4 } }))],
            &["billing"],
        );
        assert!(whole["info"]["description"].as_str().unwrap().contains("billing"));
        assert_eq!(whole["components"]["securitySchemes"]["api_key"]["scheme"], "bearer");
        assert_eq!(whole["security"], json!([{ "api_key": [] }]));
    }
}
