//! The OpenAPI 3.1 document: made of the table of operations, and of schemas that tests hold against real answers.

use axum::Json;
use serde_json::{Value, json};

use super::operations::{Gives, OPERATIONS, Operation};

/// Schemas of everything that is sent and answered.
pub const SCHEMAS: &str = include_str!("schemas.json");

pub(super) async fn document() -> Json<Value> {
    Json(build())
}

/// The whole document.
pub fn build() -> Value {
    let mut paths = serde_json::Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(format!("/api{}", operation.path)).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(operation.method.as_str().to_ascii_lowercase(), described(operation));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ria coordinator",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Networks, nodes, keys, relays, people and the audit log of one coordinator. Times are seconds since \
                1970-01-01 UTC. Fields are only ever added. What goes wrong is answered by a problem document (RFC 9457). \
                Live events: GET /api/v1/events (text/event-stream).",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

/// The schemas by name.
pub fn schemas() -> Value {
    // It is part of the program, and a test reads it.
    serde_json::from_str(SCHEMAS).unwrap_or_default()
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn described(operation: &Operation) -> Value {
    let (schema, listing) = match operation.gives {
        Gives::One(name) => (reference(name), false),
        Gives::Many(name) => (json!({ "type": "array", "items": reference(name) }), true),
    };
    let within = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = within
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let number = json!({ "type": "integer", "minimum": 0 });
    for name in operation.query {
        let schema = match *name {
            "limit" | "since" | "until" | "after" | "version" => number.clone(),
            "whole" => json!({ "type": "boolean" }),
            _ => json!({ "type": "string" }),
        };
        let required = ["from", "to"].contains(name);
        parameters.push(json!({ "name": name, "in": "query", "required": required, "schema": schema }));
    }
    let is_node = operation.path.starts_with("/v1/nodes/{node}");
    if (is_node || operation.path == "/v1/policy") && operation.writes() {
        parameters.push(json!({ "name": "If-Match", "in": "header", "schema": { "type": "string" } }));
    }
    if listing && !operation.writes() {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 200 });
        parameters.push(json!({ "name": "limit", "in": "query", "schema": limit }));
        parameters.push(json!({ "name": "offset", "in": "query", "schema": number }));
    }
    let access = if operation.writes() { "write" } else { "read" };
    let problem = json!({
        "description": "Problem",
        "content": { "application/problem+json": { "schema": reference("Problem") } },
    });
    let status = if operation.id == "createToken" { "201" } else { "200" };
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "description": format!("Role: {}. Scope: {}:{access}.", operation.least.name(), operation.area.name()),
        "tags": [operation.area.name()],
        "parameters": parameters,
        "responses": {
            status: { "description": "Done", "content": { "application/json": { "schema": schema } } },
            "default": problem,
        },
    });
    if let (Some(name), Some(described)) = (operation.takes, described.as_object_mut()) {
        let content = json!({ "application/json": { "schema": reference(name) } });
        described.insert("requestBody".to_owned(), json!({ "required": true, "content": content }));
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(all) => all.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_schema_is_there_and_is_of_use() {
        let document = build();
        let mut found = Vec::new();
        references(&document, &mut found);
        let schemas = schemas();
        let named = schemas.as_object().unwrap();
        for reference in &found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(named.contains_key(name), "{name} is missing");
        }
        for name in named.keys() {
            assert!(found.iter().any(|r| r.ends_with(&format!("/{name}"))), "{name} is used nowhere");
        }
    }
}
