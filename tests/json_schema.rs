//! Is the JSON of the programs as its schemas in `src/guide/schema` say?

mod common;

use common::{NodeProcess, run};
use serde_json::{Value, json};

/// Checks a value against a schema, of whose words only those in our schemas are known.
fn check(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let is_type = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("an unknown type {other}"),
    };
    let fits = match &schema["type"] {
        Value::Null => true,
        Value::Array(names) => names.iter().any(is_type),
        name => is_type(name),
    };
    let is_known = schema["enum"]
        .as_array()
        .is_none_or(|all| all.contains(value));
    if !fits || !is_known {
        return Err(format!("{at} is {value}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&schema["items"], item, &format!("{at}[{index}]"))?;
    }
    let Some(object) = value.as_object() else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            return Err(format!("{at} has no {name}"));
        }
    }
    let others = &schema["additionalProperties"];
    for (name, value) in object {
        match (schema["properties"].get(name), others) {
            (Some(schema), _) => check(schema, value, &format!("{at}.{name}"))?,
            (None, Value::Bool(false)) => return Err(format!("{at}.{name} is not in the schema")),
            (None, schema) => check(schema, value, &format!("{at}.{name}"))?,
        }
    }
    Ok(())
}

/// Checks each line, or all, of what a program prints.
fn conforms(program: &str, schema: &str, arguments: &[&str], is_lines: bool) {
    let schema: Value = serde_json::from_str(schema).unwrap();
    assert_eq!(schema["title"], program);
    let printed = String::from_utf8(run(program, arguments).stdout).unwrap();
    let texts: Vec<&str> = if is_lines {
        printed.lines().collect()
    } else {
        vec![&printed]
    };
    assert!(!texts.is_empty());
    for text in texts {
        let value: Value = serde_json::from_str(text).unwrap();
        check(&schema, &value, program).unwrap_or_else(|e| panic!("{e}: {text}"));
        // Each field of the object is needed and typed: the schema is not empty.
        for name in value.as_object().unwrap().keys() {
            let mut less = value.clone();
            less.as_object_mut().unwrap().remove(name);
            check(&schema, &less, program).expect_err(name);
            let mut other = value.clone();
            other[name] = json!([[1.5]]);
            check(&schema, &other, program).expect_err(name);
        }
    }
}

#[test]
fn the_json_of_each_program_conforms_to_its_schema() {
    let first = NodeProcess::start_bootstrap("storeserver");
    let host = ["-h", first.at(), "--json"];
    let put = run("storeput", &["-h", first.at(), "a", "apple"]);
    assert!(put.status.success());
    let check = |program, schema, arguments: &[&str], is_lines| {
        conforms(program, schema, &[&host[..], arguments].concat(), is_lines);
    };
    let get = include_str!("../src/guide/schema/storeget.json");
    check("storeget", get, &["a", "missing"], true);
    let list = include_str!("../src/guide/schema/storelist.json");
    check("storelist", list, &[], true);
    let bench = include_str!("../src/guide/schema/storebench.json");
    let short = [
        "--operations",
        "100",
        "--warm-up",
        "0",
        "--keys",
        "10",
        "--baseline",
    ];
    check("storebench", bench, &short, true);
    let store = include_str!("../src/guide/schema/storestatus.json");
    let network = include_str!("../src/guide/schema/locationstatus.json");
    check("storestatus", store, &[], false);
    check("locationstatus", network, &[], false);
    // A second node, and then one that is gone.
    let second = NodeProcess::start("storeserver", &["-h", first.at()]);
    check("storestatus", store, &[], false);
    drop(second);
    check("storestatus", store, &[], false);
    check("locationstatus", network, &[], false);
}
