use super::*;

fn endpoint(url: &str) -> Endpoint {
    Endpoint::parse(url).unwrap()
}

fn with(url: &str, variables: &[(&str, &str)]) -> Result<Option<Proxy>, Box<ExportError>> {
    from_env(&endpoint(url), &|name| {
        variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
    })
}

fn shown(url: &str, variables: &[(&str, &str)]) -> Option<String> {
    with(url, variables).unwrap().map(|proxy| proxy.to_string())
}

#[test]
fn the_scheme_and_the_case_decide_which_variable_counts() {
    let all = [
        ("http_proxy", "http://lower"),
        ("HTTP_PROXY", "http://upper"),
        ("HTTPS_PROXY", "proxy:3128"),
        ("ALL_PROXY", "http://all"),
    ];
    let http = "http://a.example";
    assert_eq!(shown(http, &all).as_deref(), Some("http://lower/"));
    assert_eq!(shown(http, &all[1..]).as_deref(), Some("http://upper/"));
    assert_eq!(shown(http, &all[2..]).as_deref(), Some("http://all/"));
    assert_eq!(shown(http, &[("http_proxy", " "), all[1]]).as_deref(), Some("http://upper/"));
    assert_eq!(shown(http, &[]), None);
    assert_eq!(shown("unix:///run/otlp.sock", &all), None);
    #[cfg(feature = "tls")]
    {
        assert_eq!(shown("https://a.example", &all).as_deref(), Some("http://proxy:3128/"));
        assert_eq!(shown("https://a.example", &all[..2]), None);
    }
}

#[test]
fn what_no_proxy_names_is_reached_directly() {
    for (url, no_proxy, direct) in [
        ("http://a.example", "", false),
        ("http://a.example", "*", true),
        ("http://a.example", "b.example, a.example", true),
        ("http://a.example", "b.example a.example", true),
        ("http://A.Example.", "a.EXAMPLE.", true),
        ("http://x.a.example", "a.example", true),
        ("http://x.a.example", ".a.example", true),
        ("http://x.a.example", "*.a.example", true),
        ("http://a.example", ".a.example", true),
        ("http://xa.example", "a.example", false),
        ("http://a.example", "x.a.example", false),
        ("http://a.example", ".,,..", false),
        ("http://a.example:4318", "a.example:4318", true),
        ("http://a.example:4318", "a.example:4317", false),
        ("http://a.example", "a.example:80", true),
        ("http://a.example", "a.example:x", false),
        ("http://10.1.2.3", "10.1.2.3", true),
        ("http://10.1.2.3", "10.1.2.3:80", true),
        ("http://10.1.2.3", "10.1.2.3:81", false),
        ("http://10.1.2.3", "2.3", false),
        ("http://10.1.2.3", "10.0.0.0/8", true),
        ("http://10.1.2.3", "11.0.0.0/8", false),
        ("http://10.1.2.3", "10.1.2.2/31", true),
        ("http://10.1.2.3", "10.1.2.2/32", false),
        ("http://10.1.2.3", "0.0.0.0/0", true),
        ("http://10.1.2.3", "10.0.0.0/33", false),
        ("http://10.1.2.3", "10.0.0.0/-1", false),
        ("http://10.1.2.3", "::/0", false),
        ("http://[fd00::1]", "fd00::1", true),
        ("http://[fd00::1]", "[fd00::1]", true),
        ("http://[fd00::1]:4318", "[fd00::1]:4318", true),
        ("http://[fd00::1]:4318", "[fd00::1]:1", false),
        ("http://[fd00::1]", "fd00::/8", true),
        ("http://[fd00::1]", "::/0", true),
        ("http://[::ffff:10.1.2.3]", "10.0.0.0/8", true),
        ("http://localhost", "", true),
        ("http://127.0.0.1:4318", "", true),
        ("http://127.8.8.8", "", true),
        ("http://[::1]", "", true),
        ("http://localhost.example", "", false),
    ] {
        let variables = [("HTTP_PROXY", "http://proxy"), ("NO_PROXY", no_proxy)];
        assert_eq!(shown(url, &variables).is_none(), direct, "{url} {no_proxy}");
    }
}

#[test]
fn credentials_are_decoded_sent_and_never_shown() {
    let proxy = Proxy::parse("http://us%65r:p%40ss:w%C3%B6rd@proxy:3128/").unwrap();
    assert_eq!(proxy.authorization(), Some("Basic dXNlcjpwQHNzOnfDtnJk"));
    assert_eq!(format!("{proxy} {proxy:?}"), "http://proxy:3128/ Proxy(http://proxy:3128/)");
    assert_eq!(Proxy::parse("user@proxy").unwrap().authorization(), Some("Basic dXNlcjo="));
    assert_eq!(Proxy::parse("http://proxy").unwrap().authorization(), None);
    assert_eq!([base64(b""), base64(b"a"), base64(b"ab"), base64(b"abc")], ["", "YQ==", "YWI=", "YWJj"]);
}

#[test]
fn proxies_that_cannot_be_used_are_errors_without_secrets() {
    for (url, problem) in [
        ("socks5://user:s3cret@proxy", EndpointProblem::ProxyScheme),
        ("https://user:s3cret@proxy", EndpointProblem::ProxyScheme),
        ("http://user:s3cret@", EndpointProblem::NoHost),
        ("http://user:s3cret@proxy:x", EndpointProblem::BadPort),
    ] {
        let error = with("http://a.example", &[("http_proxy", url)]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
        let ExportError::Endpoint { source_name, problem: told } = *error else { panic!("{error}") };
        assert_eq!((&*source_name, told), ("http_proxy", problem));
        // It does not matter where it is not used.
        assert_eq!(with("http://localhost", &[("http_proxy", url)]).unwrap(), None);
    }
}
