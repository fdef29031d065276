//! The document, and whether a value is what a schema in it says: as much of JSON Schema as it uses. It is
//! stricter than that: a field that is not documented is a mistake.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

/// The document, and what of it has been seen in values so far.
pub(super) struct Document {
    json: Value,
    /// Fields by `Schema.field`.
    seen: RefCell<BTreeSet<String>>,
}

impl Document {
    pub(super) fn new() -> Document {
        let text = include_str!("../openapi.json");
        let json: Value = serde_json::from_str(text).expect("it is JSON");
        assert_eq!(json["openapi"], "3.1.0");
        Document {
            json,
            seen: RefCell::default(),
        }
    }

    pub(super) fn json(&self) -> &Value {
        &self.json
    }

    /// What a reference leads to.
    pub(super) fn at(&self, reference: &str) -> Option<&Value> {
        self.json.pointer(reference.strip_prefix('#')?)
    }

    /// Follows a reference, if there is one.
    pub(super) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.at(reference).unwrap(),
            None => value,
        }
    }

    pub(super) fn each_reference(&self, see: &mut dyn FnMut(&str)) {
        fn walk(value: &Value, see: &mut dyn FnMut(&str)) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        see(reference);
                    }
                    fields.values().for_each(|value| walk(value, see));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, see)),
                _ => {}
            }
        }
        walk(&self.json, see);
    }

    pub(super) fn check_named(&self, schema: &str, value: &Value) {
        let mistake = self.mistake(schema, value);
        assert!(mistake.is_none(), "{}", mistake.unwrap_or_default());
    }

    pub(super) fn mistake(&self, schema: &str, value: &Value) -> Option<String> {
        let reference = serde_json::json!({ "$ref": format!("#/components/schemas/{schema}") });
        self.check(&reference, value, schema).err()
    }

    /// Every field of these schemas must have been in a value.
    pub(super) fn assert_all_seen(&self, of: impl Fn(&str) -> bool) {
        let seen = self.seen.borrow();
        for (name, schema) in self.json["components"]["schemas"].as_object().unwrap() {
            for field in schema["properties"].as_object().unwrap().keys() {
                let field = format!("{name}.{field}");
                assert!(!of(name) || seen.contains(&field), "{field} is never there");
            }
        }
    }

    pub(super) fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let named = reference.rsplit('/').next().unwrap();
            let target = (self.at(reference)).ok_or_else(|| format!("{reference} is not there"))?;
            if let Some(fields) = value.as_object() {
                let fields = fields.keys().map(|field| format!("{named}.{field}"));
                self.seen.borrow_mut().extend(fields);
            }
            return self.check(target, value, at);
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            _ => return Err(format!("{at}: the schema has no type")),
        };
        let fits = |wanted: &&str| match *wanted {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            _ => false,
        };
        if !types.iter().any(fits) {
            return Err(format!("{at}: {value} is not of type {types:?}"));
        }
        if let (Some(allowed), false) = (schema["enum"].as_array(), value.is_null())
            && !allowed.contains(value)
        {
            return Err(format!("{at}: {value} is none of {allowed:?}"));
        }
        if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
            && number < least
        {
            return Err(format!("{at}: {number} is less than {least}"));
        }
        for (place, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{at}[{place}]"))?;
        }
        let (Some(known), Some(fields)) = (schema["properties"].as_object(), value.as_object())
        else {
            return Ok(());
        };
        for (name, field) in fields {
            let schema = known.get(name);
            let schema = schema.ok_or_else(|| format!("{at}: {name} is not documented"))?;
            self.check(schema, field, &format!("{at}.{name}"))?;
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            if !fields.contains_key(name) {
                return Err(format!("{at}: {name} is not there"));
            }
        }
        Ok(())
    }
}
