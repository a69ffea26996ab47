//! Bounds for what Kubernetes' own types leave open: the API server checks them for pods, and would refuse what the operator
//! makes of a RaftCluster; here, whoever writes it is told.

use schemars::Schema;
use serde_json::{Map, Value, json};

/// Entries of a list.
const ITEMS_MAX: u32 = 256;
/// Entries of a map.
const ENTRIES_MAX: u32 = 32;
/// The longest name that Kubernetes has, a label's key: a prefix of 253 characters, a slash, and 63.
const NAME_MAX: u32 = 317;
/// An amount of a resource, such as 500m.
const QUANTITY_MAX: u32 = 32;
/// A label's value.
const LABEL_VALUE_MAX: u32 = 63;
/// An annotation's value: 32 of them are the 256 KiB that an object may have.
const ANNOTATION_VALUE_MAX: u32 = 8_192;

/// A variable's value, which may be a certificate.
const VARIABLE_VALUE_MAX: u32 = 16_384;

/// A Secret's name.
const SECRET_NAME_MAX: u32 = 253;

/// Of a list of Secrets.
pub(super) fn secret_names(list: &mut Schema) {
    let name = list.pointer_mut("/items/properties/name");
    if let Some(name) = name.and_then(Value::as_object_mut) {
        name.insert("minLength".into(), json!(1));
        name.insert("maxLength".into(), json!(SECRET_NAME_MAX));
    }
}

/// Of a list of variables.
pub(super) fn variables(list: &mut Schema) {
    let value = list.pointer_mut("/items/properties/value");
    if let Some(value) = value.and_then(Value::as_object_mut) {
        value.insert("maxLength".into(), json!(VARIABLE_VALUE_MAX));
    }
}

/// Of a map of labels.
pub(super) fn label_values(map: &mut Schema) {
    bound_values(map, LABEL_VALUE_MAX);
}

/// Of a map of annotations.
pub(super) fn annotation_values(map: &mut Schema) {
    bound_values(map, ANNOTATION_VALUE_MAX);
}

fn bound_values(map: &mut Schema, max: u32) {
    if let Some(value) = map
        .pointer_mut("/additionalProperties")
        .and_then(Value::as_object_mut)
    {
        value.insert("maxLength".into(), json!(max));
    }
}

/// Gives a bound to all in a schema that has none, and says of each list who merges it: nobody, unless it says so itself.
pub(super) fn fill_in(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    for (key, value) in missing(schema) {
        schema.entry(key).or_insert(value);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(key) {
            fill_in(inner);
        }
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut) {
        fill_in(property);
    }
}

fn missing(schema: &Map<String, Value>) -> Vec<(&'static str, Value)> {
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => vec![
            ("maxItems", json!(ITEMS_MAX)),
            ("x-kubernetes-list-type", json!("atomic")),
        ],
        Some("object") if schema.contains_key("additionalProperties") => {
            vec![("maxProperties", json!(ENTRIES_MAX))]
        }
        Some("string") if !schema.contains_key("enum") => vec![("maxLength", json!(NAME_MAX))],
        None if schema.contains_key("x-kubernetes-int-or-string") => vec![("maxLength", json!(QUANTITY_MAX))],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_open_is_bounded() {
        for (open, bounded) in [
            (
                json!({"type": "string"}),
                json!({"type": "string", "maxLength": 317}),
            ),
            (
                json!({"type": "string", "maxLength": 9}),
                json!({"type": "string", "maxLength": 9}),
            ),
            (
                json!({"type": "string", "enum": ["a"]}),
                json!({"type": "string", "enum": ["a"]}),
            ),
            (json!({"type": "boolean"}), json!({"type": "boolean"})),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                json!({
                    "type": "array", "maxItems": 256, "x-kubernetes-list-type": "atomic",
                    "items": {"type": "string", "maxLength": 317},
                }),
            ),
            (
                json!({"type": "array", "maxItems": 2, "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
                json!({"type": "array", "maxItems": 2, "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
            ),
            (
                json!({"type": "object", "properties": {"a": {
                    "type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true},
                }}}),
                json!({"type": "object", "properties": {"a": {
                    "type": "object", "maxProperties": 32,
                    "additionalProperties": {"x-kubernetes-int-or-string": true, "maxLength": 32},
                }}}),
            ),
        ] {
            let mut schema = open.clone();
            fill_in(&mut schema);
            assert_eq!(schema, bounded, "{open}");
        }
    }
}
