//! Merges the OpenAPI documents of the services.
//!
//! Services name their schemas and operations independently, so two services may use one name differently. Equal
//! components are merged. A component that differs, directly or through its references, is renamed to
//! `<service>.<name>` together with all references to it. Operation ids become unique. Internal paths are removed.
//! Every operation needs an API key, unless its service declares another `security`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// Name of the security scheme.
const SCHEME: &str = "api_key";

/// Section and name of an entry of `components`.
type Component = (String, String);

/// Merges the documents. `missing` names the services without a document; the description lists them.
pub(super) fn merge(documents: Vec<(&str, Value)>, missing: &[&str]) -> Value {
    let mut merged = MergedDocument::default();
    for (service, mut document) in documents {
        merged.add(service, &mut document);
    }
    merged.finish(missing)
}

#[derive(Default)]
struct MergedDocument {
    paths: Map<String, Value>,
    components: BTreeMap<String, Map<String, Value>>,
    tags: Vec<Value>,
    operation_ids: BTreeSet<String>,
}

impl MergedDocument {
    fn add(&mut self, service: &str, document: &mut Value) {
        let mut components = take_components(document);
        let renames = self.find_renames(service, &components);
        let mut paths = take_object(document, "paths");
        for item in paths.values_mut().chain(components.values_mut()) {
            redirect(item, &renames);
        }
        for (component, value) in components {
            let name = renames.get(&component).unwrap_or(&component.1).clone();
            self.components.entry(component.0).or_default().insert(name, value);
        }
        for (path, mut item) in paths {
            if path.starts_with("/internal/") {
                continue;
            }
            for operation in operations_of(&mut item) {
                self.set_id_and_tag(service, operation);
            }
            match self.paths.get_mut(&path).and_then(Value::as_object_mut) {
                // Two services may share a path with different methods.
                Some(present) => present.extend(item.as_object().cloned().unwrap_or_default()),
                None => drop(self.paths.insert(path, item)),
            }
        }
        for tag in document["tags"].as_array().into_iter().flatten() {
            if !self.tags.iter().any(|present| present["name"] == tag["name"]) {
                self.tags.push(tag.clone());
            }
        }
    }

    /// Returns new names for the components whose names have another meaning in the merged document.
    fn find_renames(&self, service: &str, components: &BTreeMap<Component, Value>) -> BTreeMap<Component, String> {
        let mut renames = BTreeMap::new();
        loop {
            let mut conflicts = Vec::new();
            for (component, value) in components {
                let present = self.components.get(&component.0).and_then(|section| section.get(&component.1));
                let Some(present) = present.filter(|_| !renames.contains_key(component)) else { continue };
                let mut redirected = value.clone();
                redirect(&mut redirected, &renames);
                if redirected != *present {
                    conflicts.push(component.clone());
                }
            }
            if conflicts.is_empty() {
                return renames;
            }
            // Components that refer to these now differ too, so the next round checks them again.
            for component in conflicts {
                let name = format!("{service}.{}", component.1);
                renames.insert(component, name);
            }
        }
    }

    /// Makes the operation id unique, and tags an untagged operation with its service.
    fn set_id_and_tag(&mut self, service: &str, operation: &mut Map<String, Value>) {
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

    /// Drops components that no operation reaches, such as those of internal paths.
    fn drop_unused_components(&mut self) {
        let mut used: BTreeSet<Component> = BTreeSet::new();
        let mut open: Vec<Component> = self.paths.values().flat_map(references_of).collect();
        while let Some(component) = open.pop() {
            let value = self.components.get(&component.0).and_then(|section| section.get(&component.1));
            if let Some(value) = value.filter(|_| !used.contains(&component)) {
                open.extend(references_of(value));
                used.insert(component);
            }
        }
        for (section, components) in &mut self.components {
            components.retain(|name, _| used.contains(&(section.clone(), name.clone())));
        }
    }

    fn finish(mut self, missing: &[&str]) -> Value {
        self.drop_unused_components();
        let scheme = json!({
            "type": "http",
            "scheme": "bearer",
            "description": "An organization's API key (cat_…), or the operator's key.",
        });
        self.components.entry("securitySchemes".to_owned()).or_default().insert(SCHEME.to_owned(), scheme);
        let mut description = "Files, the jobs that process them, and the cost of both.".to_owned();
        if !missing.is_empty() {
            description.push_str(&format!(
                " Temporarily not described, because the service is unreachable: {}.",
                missing.join(", ")
            ));
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Catacloud",
                "description": description,
                "version": env!("CARGO_PKG_VERSION"),
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": "/", "description": "This gateway." }],
            "paths": self.paths,
            "components": self.components,
            "tags": self.tags,
            "security": [{ SCHEME: [] }],
        })
    }
}

/// Removes and returns all components except the security schemes, which the gateway defines.
fn take_components(document: &mut Value) -> BTreeMap<Component, Value> {
    let mut all = BTreeMap::new();
    for (section, components) in take_object(document, "components") {
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

fn take_object(document: &mut Value, key: &str) -> Map<String, Value> {
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

/// Returns the components that `value` refers to, directly.
fn references_of(value: &Value) -> Vec<Component> {
    match value {
        Value::Array(items) => items.iter().flat_map(references_of).collect(),
        Value::Object(map) => map.values().flat_map(references_of).collect(),
        // Any string, because a discriminator's mapping holds references outside of `$ref`.
        Value::String(text) => {
            let place = text.strip_prefix("#/components/").and_then(|place| place.split_once('/'));
            place.into_iter().map(|(section, name)| (section.to_owned(), name.to_owned())).collect()
        }
        _ => Vec::new(),
    }
}

/// Replaces the references to renamed components in `value`.
fn redirect(value: &mut Value, renames: &BTreeMap<Component, String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, renames)),
        Value::Object(map) => {
            for (key, item) in map {
                match (key.as_str(), &mut *item) {
                    ("$ref", Value::String(reference)) => redirect_reference(reference, renames),
                    // The mapping of a discriminator holds references as plain strings.
                    ("mapping", Value::Object(mapping)) => {
                        for target in mapping.values_mut() {
                            if let Value::String(reference) = target {
                                redirect_reference(reference, renames);
                            } else {
                                redirect(target, renames);
                            }
                        }
                    }
                    _ => redirect(item, renames),
                }
            }
        }
        _ => {}
    }
}

fn redirect_reference(reference: &mut String, renames: &BTreeMap<Component, String>) {
    let Some(place) = reference.strip_prefix("#/components/") else { return };
    let Some((section, name)) = place.split_once('/') else { return };
    if let Some(name) = renames.get(&(section.to_owned(), name.to_owned())) {
        *reference = format!("#/components/{section}/{name}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::merge;

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
    fn equal_components_are_merged() {
        let schemas = json!({ "Answer": { "type": "string" } });
        let merged =
            merge(vec![("job", service("/a", "a", schemas.clone())), ("file", service("/b", "b", schemas))], &[]);
        assert_eq!(merged["components"]["schemas"].as_object().unwrap().len(), 1);
        assert_eq!(answer_of(&merged, "/a"), "#/components/schemas/Answer");
        assert_eq!(answer_of(&merged, "/b"), "#/components/schemas/Answer");
    }

    #[test]
    fn different_component_is_renamed() {
        let job = json!({ "Answer": { "type": "string" } });
        let file = json!({ "Answer": { "type": "integer" } });
        let merged = merge(vec![("job", service("/a", "a", job)), ("file", service("/b", "b", file))], &[]);
        assert_eq!(merged["components"]["schemas"]["Answer"], json!({ "type": "string" }));
        assert_eq!(merged["components"]["schemas"]["file.Answer"], json!({ "type": "integer" }));
        assert_eq!(answer_of(&merged, "/a"), "#/components/schemas/Answer");
        assert_eq!(answer_of(&merged, "/b"), "#/components/schemas/file.Answer");
    }

    #[test]
    fn component_with_different_reference_is_renamed() {
        let answer = json!({ "type": "array", "items": { "$ref": "#/components/schemas/Item" } });
        let job = json!({ "Answer": answer, "Item": { "type": "string" } });
        let file = json!({ "Answer": answer, "Item": { "type": "integer" } });
        let merged = merge(vec![("job", service("/a", "a", job)), ("file", service("/b", "b", file))], &[]);
        assert_eq!(answer_of(&merged, "/b"), "#/components/schemas/file.Answer");
        let items = &merged["components"]["schemas"]["file.Answer"]["items"]["$ref"];
        assert_eq!(items, "#/components/schemas/file.Item");
        assert_eq!(merged["components"]["schemas"]["Answer"]["items"]["$ref"], "#/components/schemas/Item");
    }

    #[test]
    fn unreachable_components_are_dropped() {
        let schemas = json!({
            "Answer": { "items": { "$ref": "#/components/schemas/Item" } },
            "Item": { "type": "string" },
            "Unused": { "items": { "$ref": "#/components/schemas/AlsoUnused" } },
            "AlsoUnused": { "type": "string" },
        });
        let merged = merge(vec![("job", service("/a", "a", schemas))], &[]);
        let names: Vec<_> = merged["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["Answer", "Item"]);
    }

    #[test]
    fn equal_recursive_components_are_merged() {
        let tree = json!({ "Answer": { "items": { "$ref": "#/components/schemas/Answer" } } });
        let merged = merge(vec![("job", service("/a", "a", tree.clone())), ("file", service("/b", "b", tree))], &[]);
        assert_eq!(merged["components"]["schemas"].as_object().unwrap().len(), 1);
    }

    #[test]
    fn operations_get_unique_ids_and_a_tag() {
        let part = |path| service(path, "list", json!({}));
        let merged = merge(vec![("job", part("/a")), ("file", part("/b")), ("file", part("/c"))], &[]);
        let ids = ["/a", "/b", "/c"].map(|path| merged["paths"][path]["get"]["operationId"].as_str().unwrap());
        assert_eq!(ids, ["list", "file_list", "file_list_2"]);
        assert_eq!(merged["paths"]["/b"]["get"]["tags"], json!(["file"]));
    }

    #[test]
    fn internal_paths_are_removed() {
        let parts = vec![
            ("job", service("/internal/v1/job/claims", "claim", json!({}))),
            ("file", service("/b", "b", json!({}))),
        ];
        let merged = merge(parts, &[]);
        assert_eq!(merged["paths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["/b"]);
    }

    #[test]
    fn missing_and_malformed_documents_are_tolerated() {
        let merged = merge(
            vec![("job", json!([1])), ("file", json!({ "paths": 3, "components": { "schemas": 4 } }))],
            &["billing"],
        );
        assert!(merged["info"]["description"].as_str().unwrap().contains("billing"));
        assert_eq!(merged["components"]["securitySchemes"]["api_key"]["scheme"], "bearer");
        assert_eq!(merged["security"], json!([{ "api_key": [] }]));
    }
}
