use super::*;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, ResourceProfiles, ScopeProfiles, Stack,
    ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use std::collections::BTreeSet;

type Request = ExportProfilesServiceRequest;

/// A rule, and what breaks it.
type Case = (Rule, fn(&mut Request));

fn attribute(key_strindex: i32, value: i64) -> KeyValueAndUnit {
    let value = Some(AnyValue { value: Some(Value::IntValue(value)) });
    KeyValueAndUnit { key_strindex, value, unit_strindex: 0 }
}

/// A request that keeps all rules, with an entry 1 in every table.
fn valid() -> Request {
    let mapping = Mapping {
        memory_start: 1,
        memory_limit: 2,
        filename_strindex: 4,
        attribute_indices: vec![1, 2],
        ..Mapping::default()
    };
    let line = Line { function_index: 1, line: 3, column: 0 };
    let location = Location { mapping_index: 1, address: 1, lines: vec![line], attribute_indices: vec![1] };
    let function = Function { name_strindex: 5, start_line: 1, ..Function::default() };
    let strings = ["", "cpu", "key 1", "key 2", "file", "name"];
    let dictionary = ProfilesDictionary {
        mapping_table: vec![Mapping::default(), mapping],
        location_table: vec![Location::default(), location],
        function_table: vec![Function::default(), function],
        link_table: vec![Link::default(), Link { trace_id: vec![1; 16], span_id: vec![1; 8] }],
        string_table: strings.map(str::to_owned).into(),
        attribute_table: vec![KeyValueAndUnit::default(), attribute(2, 0), attribute(3, 0)],
        stack_table: vec![Stack::default(), Stack { location_indices: vec![1] }],
    };
    let sample = Sample {
        stack_index: 1,
        attribute_indices: vec![1, 2],
        link_index: 1,
        values: vec![7],
        ..Sample::default()
    };
    let profile = Profile {
        sample_type: Some(ValueType { type_strindex: 1, unit_strindex: 0 }),
        samples: vec![sample.clone(), Sample { stack_index: 0, ..sample }],
        time_unix_nano: 100,
        duration_nano: 10,
        profile_id: vec![1; 16],
        attribute_indices: vec![2],
        ..Profile::default()
    };
    let resource = Resource {
        attributes: vec![KeyValue { key: "service.name".to_owned(), ..KeyValue::default() }],
        ..Resource::default()
    };
    let scope = ScopeProfiles { profiles: vec![profile], ..ScopeProfiles::default() };
    Request {
        resource_profiles: vec![ResourceProfiles {
            resource: Some(resource),
            scope_profiles: vec![scope],
            schema_url: String::new(),
        }],
        dictionary: Some(dictionary),
    }
}

fn dictionary(request: &mut Request) -> &mut ProfilesDictionary {
    request.dictionary.as_mut().unwrap()
}

fn profile(request: &mut Request) -> &mut Profile {
    &mut request.resource_profiles[0].scope_profiles[0].profiles[0]
}

fn sample(request: &mut Request) -> &mut Sample {
    &mut profile(request).samples[0]
}

/// Both samples get the same values and timestamps.
fn samples(request: &mut Request, values: &[i64], timestamps: &[u64]) {
    for sample in &mut profile(request).samples {
        sample.values = values.to_vec();
        sample.timestamps_unix_nano = timestamps.to_vec();
    }
}

#[test]
fn what_keeps_the_rules_passes() {
    assert_eq!(check(&valid()), []);
    for (values, timestamps) in [(&[][..], &[100, 109][..]), (&[1, 2], &[105, 105])] {
        let mut request = valid();
        samples(&mut request, values, timestamps);
        assert_eq!(check(&request), []);
    }
    let mut request = valid();
    profile(&mut request).profile_id.clear();
    dictionary(&mut request).mapping_table[1].memory_start = 0;
    dictionary(&mut request).mapping_table[1].memory_limit = 0;
    assert_eq!(check(&request), []);
}

#[test]
fn every_rule_has_a_case_that_breaks_it_alone() {
    let cases: Vec<Case> = vec![
        (Rule::NotEmpty, |r| r.resource_profiles[0].scope_profiles.push(ScopeProfiles::default())),
        (Rule::NotEmpty, |r| r.resource_profiles.push(ResourceProfiles::default())),
        (Rule::EntryZeroIsZero(Table::Mapping), |r| dictionary(r).mapping_table[0].file_offset = 1),
        (Rule::EntryZeroIsZero(Table::Location), |r| dictionary(r).location_table[0].address = 9),
        (Rule::EntryZeroIsZero(Table::Function), |r| dictionary(r).function_table[0].start_line = 9),
        (Rule::EntryZeroIsZero(Table::Link), |r| {
            dictionary(r).link_table[0] = Link { trace_id: vec![0; 16], span_id: vec![0; 8] };
        }),
        (Rule::EntryZeroIsZero(Table::String), |r| dictionary(r).string_table[0] = "x".to_owned()),
        (Rule::EntryZeroIsZero(Table::Attribute), |r| {
            dictionary(r).attribute_table[0].value = Some(AnyValue { value: Some(Value::IntValue(1)) });
        }),
        (Rule::EntryZeroIsZero(Table::Stack), |r| dictionary(r).stack_table[0].location_indices = vec![0]),
        (Rule::IndexInTable(Table::Mapping), |r| dictionary(r).location_table.push(at_mapping(2))),
        (Rule::IndexInTable(Table::Location), |r| dictionary(r).stack_table[1].location_indices.push(2)),
        (Rule::IndexInTable(Table::Function), |r| {
            dictionary(r).location_table[1].lines.push(Line { function_index: 2, line: 0, column: 0 });
        }),
        (Rule::IndexInTable(Table::Link), |r| sample(r).link_index = -1),
        (Rule::IndexInTable(Table::String), |r| profile(r).period_type = Some(value_type(6, 0))),
        (Rule::IndexInTable(Table::String), |r| profile(r).sample_type = Some(value_type(1, 6))),
        (Rule::IndexInTable(Table::String), |r| dictionary(r).mapping_table[1].filename_strindex = 6),
        (Rule::IndexInTable(Table::String), |r| dictionary(r).function_table[1].system_name_strindex = 6),
        (Rule::IndexInTable(Table::String), |r| dictionary(r).function_table[1].filename_strindex = -6),
        (Rule::IndexInTable(Table::String), |r| dictionary(r).attribute_table[1].unit_strindex = 6),
        (Rule::IndexInTable(Table::Attribute), |r| profile(r).attribute_indices.push(3)),
        (Rule::IndexInTable(Table::Attribute), |r| sample(r).attribute_indices.push(3)),
        (Rule::IndexInTable(Table::Attribute), |r| dictionary(r).mapping_table[1].attribute_indices.push(3)),
        (Rule::IndexInTable(Table::Attribute), |r| dictionary(r).location_table[1].attribute_indices.push(3)),
        (Rule::IndexInTable(Table::Stack), |r| sample(r).stack_index = 2),
        (Rule::NoDuplicate(Table::Mapping), |r| {
            let mut same = dictionary(r).mapping_table[1].clone();
            same.attribute_indices.reverse();
            dictionary(r).mapping_table.push(same);
            dictionary(r).location_table.push(at_mapping(2));
        }),
        (Rule::NoDuplicate(Table::Location), |r| repeat(&mut dictionary(r).location_table)),
        (Rule::NoDuplicate(Table::Function), |r| repeat(&mut dictionary(r).function_table)),
        (Rule::NoDuplicate(Table::Link), |r| repeat(&mut dictionary(r).link_table)),
        (Rule::NoDuplicate(Table::String), |r| repeat(&mut dictionary(r).string_table)),
        (Rule::NoDuplicate(Table::Attribute), |r| repeat(&mut dictionary(r).attribute_table)),
        (Rule::NoDuplicate(Table::Stack), |r| repeat(&mut dictionary(r).stack_table)),
        (Rule::NoOrphan(Table::Mapping), |r| {
            dictionary(r).mapping_table.push(Mapping { file_offset: 1, ..Mapping::default() });
        }),
        (Rule::NoOrphan(Table::Location), |r| {
            dictionary(r).location_table.push(Location { address: 5, ..Location::default() });
        }),
        (Rule::NoOrphan(Table::Function), |r| {
            dictionary(r).function_table.push(Function { start_line: 5, ..Function::default() });
        }),
        (Rule::NoOrphan(Table::Link), |r| {
            dictionary(r).link_table.push(Link { trace_id: vec![2; 16], span_id: vec![2; 8] });
        }),
        (Rule::NoOrphan(Table::String), |r| dictionary(r).string_table.push("unused".to_owned())),
        (Rule::NoOrphan(Table::Attribute), |r| dictionary(r).attribute_table.push(attribute(2, 8))),
        (Rule::NoOrphan(Table::Stack), |r| {
            dictionary(r).stack_table.push(Stack { location_indices: vec![1, 1] });
        }),
        (Rule::KeysUnique, |r| sample(r).attribute_indices.push(2)),
        (Rule::KeysUnique, |r| {
            dictionary(r).attribute_table.push(attribute(2, 5));
            dictionary(r).location_table[1].attribute_indices.push(3);
        }),
        (Rule::KeysUnique, |r| repeat(&mut r.resource_profiles[0].resource.as_mut().unwrap().attributes)),
        (Rule::TimestampInRange, |r| samples(r, &[], &[99])),
        (Rule::TimestampInRange, |r| samples(r, &[], &[110])),
        (Rule::SampleShape, |r| samples(r, &[], &[])),
        (Rule::SampleShape, |r| samples(r, &[1, 2], &[])),
        (Rule::SampleShape, |r| samples(r, &[1, 2], &[100])),
        (Rule::SameShape, |r| sample(r).timestamps_unix_nano = vec![100]),
        (Rule::SamplesUnique, |r| {
            let mut same = sample(r).clone();
            same.attribute_indices.reverse();
            profile(r).samples.push(same);
        }),
        (Rule::MappingRange, |r| dictionary(r).mapping_table[1].memory_limit = 1),
        (Rule::NotNegative, |r| dictionary(r).location_table[1].lines[0].line = -1),
        (Rule::NotNegative, |r| dictionary(r).location_table[1].lines[0].column = -1),
        (Rule::NotNegative, |r| dictionary(r).function_table[1].start_line = -1),
        (Rule::IdLength, |r| dictionary(r).link_table[1].trace_id.truncate(15)),
        (Rule::IdLength, |r| dictionary(r).link_table[1].span_id.push(1)),
        (Rule::IdLength, |r| profile(r).profile_id.push(1)),
        (Rule::IdLength, |r| profile(r).profile_id.fill(0)),
    ];
    let mut covered = BTreeSet::new();
    for (n, (rule, change)) in cases.into_iter().enumerate() {
        let mut request = valid();
        change(&mut request);
        let broken: BTreeSet<Rule> = check(&request)
            .into_iter()
            .map(|violation| violation.rule)
            // A copy is not referred to, and what an index misses may be one's only reference.
            .filter(|other| *other == rule || !matches!(other, Rule::NoOrphan(_)))
            .collect();
        assert_eq!(broken, BTreeSet::from([rule]), "case {n}");
        covered.insert(rule);
    }
    // Those of `a_missing_table_is_noticed`.
    covered.extend(Table::ALL.map(Rule::EntryZeroPresent));
    let of_tables: [fn(Table) -> Rule; 5] = [
        Rule::EntryZeroPresent,
        Rule::EntryZeroIsZero,
        Rule::IndexInTable,
        Rule::NoDuplicate,
        Rule::NoOrphan,
    ];
    let all = of_tables.into_iter().flat_map(|rule| Table::ALL.map(rule)).chain([
        Rule::NotEmpty,
        Rule::KeysUnique,
        Rule::TimestampInRange,
        Rule::SampleShape,
        Rule::SameShape,
        Rule::SamplesUnique,
        Rule::MappingRange,
        Rule::NotNegative,
        Rule::IdLength,
    ]);
    assert_eq!(covered, all.collect(), "a rule without a case");
}

#[test]
fn a_missing_table_is_noticed() {
    let missing = |change: fn(&mut Request), tables: &[Table]| {
        let mut request = valid();
        change(&mut request);
        let violations = check(&request);
        let found = |table| violations.iter().any(|v| v.rule == Rule::EntryZeroPresent(table));
        for table in Table::ALL {
            assert_eq!(found(table), tables.contains(&table), "{table:?}");
        }
    };
    missing(|r| r.dictionary = None, &Table::ALL);
    missing(|r| dictionary(r).mapping_table.clear(), &[Table::Mapping]);
    missing(|r| dictionary(r).location_table.clear(), &[Table::Location]);
    missing(|r| dictionary(r).function_table.clear(), &[Table::Function]);
    missing(|r| dictionary(r).link_table.clear(), &[Table::Link]);
    missing(|r| dictionary(r).string_table.clear(), &[Table::String]);
    missing(|r| dictionary(r).attribute_table.clear(), &[Table::Attribute]);
    missing(|r| dictionary(r).stack_table.clear(), &[Table::Stack]);
}

#[test]
fn an_empty_request_is_noticed() {
    assert!(check(&Request::default()).iter().any(|violation| violation.at == "resource_profiles"));
}

fn value_type(type_strindex: i32, unit_strindex: i32) -> ValueType {
    ValueType { type_strindex, unit_strindex }
}

fn at_mapping(mapping_index: i32) -> Location {
    Location { mapping_index, ..Location::default() }
}

/// Adds the last entry once more.
fn repeat<T: Clone>(table: &mut Vec<T>) {
    table.extend(table.last().cloned());
}
