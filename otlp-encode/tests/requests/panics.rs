//! Where the caller's own code panics, what was added before and what is added after is handed out, whole.

use crate::model::Batches;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use otlp_encode::*;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Whether `code` panicked, as [`panic`] does.
fn panics(code: impl FnOnce() -> Result<(), Error>) -> bool {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => result.map(|()| false).unwrap(),
        Err(_) => true,
    }
}

/// Panics without a message on the terminal.
fn panic() -> ! {
    resume_unwind(Box::new(()))
}

#[test]
fn in_attributes() {
    let (resource, scope) = (ResourceBlob::default(), ScopeBlob::default());
    for unwinds in [false, true] {
        let mut request = LogsRequest::new(Limits::default());
        let mut batches = Batches::default();
        let all = || {
            let mut out = request.start(|batch| batches.push(batch));
            let mut scopes = out.resource(&resource);
            let mut records = scopes.scope(&scope);
            let record = LogRecord::default();
            let attributes = |to: &mut AttributeWriter<'_>| {
                to.add("key", "value");
                panic()
            };
            // As the first, which opens the frames, and later.
            assert!(panics(|| records.add(&record, &attributes)));
            records.add(&record, &[("a", 1)])?;
            if unwinds {
                return records.add(&record, &attributes);
            }
            assert!(panics(|| records.add(&record, &attributes)));
            records.add(&record, &[("b", 1)])
        };
        assert_eq!(panics(all), unwinds);
        let decoded = batches.decode::<ExportLogsServiceRequest>(Limits::default());
        let records = decoded[0].0.resource_logs[0].scope_logs[0].log_records.len();
        assert_eq!((decoded.len(), records, decoded[0].1), (1, 2 - usize::from(unwinds), records as u64));
    }
}

#[test]
fn in_what_makes_a_sample() {
    let (resource, scope) = (ResourceBlob::default(), ScopeBlob::default());
    let info = ProfileInfo { sample_type: ("samples", "count"), ..ProfileInfo::default() };
    let mut request = ProfilesRequest::new(Limits::default(), 1);
    let mut batches = Batches::default();
    let sample = |d: &mut Dictionary, panics: bool| {
        let attribute = [d.attribute("panics", "", panics)];
        if panics { panic() } else { (StackIdx::default(), attribute, LinkIdx::default()) }
    };
    assert!(panics(|| {
        let mut out = request.start(Some([1; 16]), |batch| batches.push(batch));
        let mut scopes = out.resource(&resource);
        let mut profiles = scopes.scope(&scope);
        let mut samples = profiles.profile(&info);
        assert!(panics(|| samples.add(&[1], &[], |d| sample(d, true))));
        samples.add(&[1], &[], |d| sample(d, false))?;
        samples.add(&[1], &[], |d| sample(d, true))
    }));
    let decoded = batches.decode::<ExportProfilesServiceRequest>(Limits::default());
    let profile = &decoded[0].0.resource_profiles[0].scope_profiles[0].profiles[0];
    assert_eq!((profile.samples.len(), &profile.profile_id), (1, &vec![1; 16]));
    let dictionary = decoded[0].0.dictionary.as_ref().unwrap();
    assert_eq!(dictionary.attribute_table.len(), 2, "no orphan");
}

#[test]
fn in_the_sink() {
    let (resource, scope) = (ResourceBlob::default(), ScopeBlob::default());
    let mut request = LogsRequest::new(Limits { max_items: 2, ..Limits::default() });
    let mut batches = Batches::default();
    let mut calls = 0;
    let mut out = request.start(|batch| {
        calls += 1;
        if calls == 1 { panic() } else { batches.push(batch) }
    });
    let mut scopes = out.resource(&resource);
    let mut records = scopes.scope(&scope);
    let record = LogRecord::default();
    assert!(!panics(|| records.add(&record, &())));
    assert!(panics(|| records.add(&record, &())));
    assert!(!panics(|| records.add(&record, &())));
    out.finish();
    let decoded = batches.decode::<ExportLogsServiceRequest>(Limits::default());
    let records = decoded[0].0.resource_logs[0].scope_logs[0].log_records.len();
    assert_eq!((decoded.len(), records), (1, 1), "what the sink was given is not given again");

    let info = ProfileInfo::default();
    let mut request = ProfilesRequest::new(Limits { max_items: 2, ..Limits::default() }, 1);
    let mut batches = Batches::default();
    let mut calls = 0;
    let mut out = request.start(None, |batch| {
        calls += 1;
        if calls == 1 { panic() } else { batches.push(batch) }
    });
    let mut scopes = out.resource(&resource);
    let mut profiles = scopes.scope(&scope);
    let mut samples = profiles.profile(&info);
    for number in 0..3 {
        let sample =
            |d: &mut Dictionary| (StackIdx::default(), [d.attribute("k", "", number)], LinkIdx::default());
        assert_eq!(panics(|| samples.add(&[1], &[], sample)), number == 1);
    }
    out.finish();
    let decoded = batches.decode::<ExportProfilesServiceRequest>(Limits::default());
    let profiles = &decoded[0].0.resource_profiles[0].scope_profiles[0].profiles;
    assert_eq!((decoded.len(), profiles.len(), profiles[0].samples.len()), (1, 1, 1));
    assert_eq!(decoded[0].0.dictionary.as_ref().unwrap().attribute_table.len(), 2, "no orphan");
}
