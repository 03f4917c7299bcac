use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use proptest::prelude::*;

use super::Patterns;

fn patterns(texts: &[&str]) -> Patterns {
    Patterns::new(texts.iter().copied()).expect("valid patterns")
}

fn matches(texts: &[&str], path: &str, is_directory: bool) -> bool {
    patterns(texts).matches(Path::new(path), is_directory)
}

/// The behaviour that restic's `internal/filter` tests for.
#[test]
fn single_patterns_match_as_in_restic() {
    let matching = [
        ("*.go", "/foo/bar/test.go"),
        ("*", "/foo/bar/test.go"),
        ("**", "/foo/bar/test.go"),
        ("foo*", "/foo/bar/test.go"),
        ("bar/*", "/foo/bar/test.go"),
        ("bar/test.go", "/foo/bar/test.go"),
        ("ba*/*.go", "/foo/bar/test.go"),
        ("bar", "/foo/bar/baz"),
        ("/foo///bar", "/foo/bar"),
        ("/foo/../bar", "/bar"),
        ("/foo", "/foo/baz"),
        ("/foo/", "/foo/baz"),
        ("/foo/*", "/foo/baz"),
        ("/foo/*/test.*", "/foo/bar/test.go"),
        ("/*/*/baz/test.*", "/foo/bar/baz/test.go"),
        ("baz/test.*", "bar/baz/test.go"),
        ("test.go", "bar/baz/test.go"),
        ("sdk", "/foo/bar/sdk/test/sdk_foo.go"),
        ("foo/**/bar/*.go", "/home/user/foo/work/special/project/bar/test.go"),
        ("foo/**/bar/*.go", "/home/user/foo/bar/test.go"),
        ("foo/**/bar/*.go", "foo/bar/baz/bar/test.go"),
        ("foo/**/bar/*.go", "/foo/bar/main.go"),
        ("foo/**/bar", "/home/user/foo/x/y/bar/main.go"),
        ("foo/**/bar/**/x", "/home/user/foo/bar/x"),
        ("foo/**/bar/**/x", "/home/user/foo/blaaa/blaz/bar/shared/work/x"),
        ("user/**/hidden*/**/c", "/home/user/work/x/y/hidden/z/a/b/c"),
        ("/home/user/repos/**/target", "/home/user/repos/repo2/project1/target/debug"),
        ("foo/**", "/foo"),
        ("/**/bar", "/foo/bar"),
        ("/home/[uU]ser/?.go", "/home/user/F.go"),
    ];
    for (pattern, path) in matching {
        assert!(matches(&[pattern], path, false), "{pattern} {path}");
    }
    let others = [
        ("*.c", "/foo/bar/test.go"),
        ("/bar*", "/foo/bar/test.go"),
        ("baz/*", "/foo/bar/test.go"),
        ("tesT.*", "/foo/bar/test.go"),
        ("/foo/bar", "/foo/baz"),
        ("/foo/../bar", "/foo/bar"),
        ("/foo/*", "/foo"),
        ("/foo/*test.*", "/foo/bar/test.go"),
        ("/foo/*/bar/test.*", "/foo/bar/test.go"),
        ("/*/*/bar/test.*", "/foo/bar/baz/test.go"),
        ("/foo/bar/test.*", "bar/baz/test.go"),
        ("/x/y/bar/baz/test.c", "bar/baz/test.go"),
        ("/bar/baz", "bar/baz"),
        ("sdk/*/cpp/*/*vars*.html", "/usr/share/doc/libreoffice/sdk/docs/cpp/ref/a00517.html"),
        ("foo/**/bar/*.go", "/home/user/foo/test.c"),
        ("foo/**/bar/*.go", "bar/foo/main.go"),
        ("user/**/important*", "/home/user/work/x/y/hidden/x"),
        ("b*ash", "/bin/ash"),
        ("foo", "/dir/foobar"),
        ("/bin", "/usr/bin/restic"),
        ("/foo/**/bar", "/x/foo/bar"),
    ];
    for (pattern, path) in others {
        assert!(!matches(&[pattern], path, false), "{pattern} {path}");
    }
}

#[test]
fn what_may_lie_below_is_as_in_restic() {
    let possible = [
        ("foo/bar", "/foo"),
        ("baz", "/foo/bar"),
        ("/foo/bar/baz", "/foo"),
        ("/foo/bar/baz", "/foo/bar"),
        ("/foo/**/baz", "/foo/bar/baz/blah"),
        ("/foo/**", "/foo/bar/baz"),
        ("/foo/*/qux", "/foo/bar"),
        ("/foo", "/foo/bar"),
        ("/*", "/foo/bar"),
        ("/*/**", "/foo"),
        ("/**/*", "/foo"),
        ("/foo/bar", "/"),
    ];
    for (pattern, path) in possible {
        assert!(patterns(&[pattern]).may_match_below(Path::new(path)), "{pattern} {path}");
    }
    let impossible = [
        ("/foo/bar/baz", "/foo/baz"),
        ("/foo/*/qux", "/foo/bar/boo"),
        ("/foo/*/qux", "/foo/bar/boo/xx"),
        ("/baz/bar", "/foo"),
        ("/foo/*/baz", "/bar/baz"),
        ("/*/*/bar/test.*", "/foo/bar/test.go"),
    ];
    for (pattern, path) in impossible {
        assert!(!patterns(&[pattern]).may_match_below(Path::new(path)), "{pattern} {path}");
    }
}

/// restic's `filterListTests`: patterns, path, whether it matches, whether something below may.
#[test]
fn lists_are_as_in_restic() {
    let nested = ["/**/*", "!/foo", "/foo/*", "!/foo/bar"];
    let nested_further = ["/**/*", "!/foo", "/foo/*", "!/foo/bar", "/foo/bar/test*"];
    let cases: [(&[&str], &str, bool, bool); 20] = [
        (&[], "/foo/bar/test.go", false, false),
        (&["*.go"], "/foo/bar/test.go", true, true),
        (&["*.c"], "/foo/bar/test.go", false, true),
        (&["*.go", "*.c"], "/foo/bar/test.go", true, true),
        (&["?", "x"], "/foo/bar/x", true, true),
        (&["/*/*/bar/test.*", "*.go"], "/foo/bar/test.go", true, true),
        (&["", "*.c"], "/foo/bar/test.go", false, true),
        (&["!**", "*.go"], "/foo/bar/test.go", true, true),
        (&["!**", "*.c"], "/foo/bar/test.go", false, true),
        (&["/foo/*/test.*", "!*.c"], "/foo/bar/test.c", false, false),
        (&["/foo/*/test.*", "!*.c"], "/foo/bar/test.go", true, true),
        (&["/foo/*/*", "!test.*", "*.c"], "/foo/bar/test.go", false, true),
        (&["/foo/*/*", "!test.*", "*.c"], "/foo/bar/test.c", true, true),
        (&nested, "/foo/other/test.go", true, true),
        (&nested, "/foo/bar", false, false),
        (&nested, "/foo/bar/test.go/child", false, false),
        (&nested_further, "/foo/bar/test.go/child", true, true),
        (&["/foo/bar/*", "!/foo/bar/[a-m]*"], "/foo", false, true),
        (&["/foo/**/test.c"], "/foo/bar/foo/bar/test.c", true, true),
        (&["/foo/*/test.c"], "/foo/bar/foo/bar/test.c", false, false),
    ];
    for (texts, path, matched, below) in cases {
        assert_eq!(matches(texts, path, false), matched, "{texts:?} {path}");
        assert_eq!(patterns(texts).may_match_below(Path::new(path)), below, "below {texts:?} {path}");
    }
}

#[test]
fn a_slash_at_the_end_means_directories_alone() {
    assert!(matches(&["cache/"], "/srv/cache", true));
    assert!(matches(&["cache/"], "/srv/cache/x", false));
    assert!(!matches(&["cache/"], "/srv/cache", false));
    assert!(matches(&["*", "!keep/"], "/keep", false));
    assert!(!matches(&["*", "!keep/"], "/keep", true));
    assert!(matches(&["/"], "/anything", false));
}

#[test]
fn case_can_be_ignored_in_all_of_unicode() {
    let ignoring = Patterns::ignoring_case(["*.JPG", "/Straße/[A-C]*", "ÄÖ"]).expect("valid");
    for path in ["/x.jpg", "/x.JpG", "/straße/apple", "/STRAßE/Banana", "/äö/x"] {
        assert!(ignoring.matches(Path::new(path), false), "{path}");
    }
    assert!(!ignoring.matches(Path::new("/straße/dog"), false));
    let both = patterns(&["*.c", "!a.c"]).or(Patterns::ignoring_case(["a.*"]).expect("valid"));
    assert!(both.matches(Path::new("/A.C"), false) && both.matches(Path::new("/a.c"), false));
    assert_eq!(both.texts().collect::<Vec<_>>(), ["*.c", "!a.c", "a.*"]);
}

#[test]
fn names_need_not_be_utf_8() {
    let path = Path::new(OsStr::from_bytes(b"/srv/\xff\xfe/b\xe9.TMP"));
    assert!(patterns(&["*.TMP"]).matches(path, false));
    assert!(patterns(&["/srv/??"]).matches(path, false));
    assert!(patterns(&["b?.TMP"]).matches(path, false));
    assert!(Patterns::ignoring_case(["b?.tmp"]).expect("valid").matches(path, false));
}

#[test]
fn a_bad_pattern_is_named() {
    for bad in ["test/[", "test/**/[", "!", "*[._]log[.-][0-9]", "a\\", "..", "./.", "a/../.."] {
        let error = Patterns::new(["fine", bad]).expect_err(bad);
        assert_eq!(error.pattern, bad);
        assert!(error.to_string().contains(&format!("\"{bad}\"")), "{error}");
    }
}

/// What the walk does: ask for each entry, and do not go below what matches.
fn is_reached(patterns: &Patterns, path: &Path) -> bool {
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.pop();
    above.iter().rev().all(|place| !patterns.matches(place, *place != path))
}

fn pattern() -> impl Strategy<Value = String> {
    let component = prop_oneof![4 => "[ab*?]{1,3}", 1 => Just("**".to_owned()), 1 => Just("[^a]".to_owned())];
    let components = proptest::collection::vec(component, 1..5);
    (components, any::<bool>(), any::<bool>()).prop_map(|(components, rooted, directory)| {
        let (root, end) = (if rooted { "/" } else { "" }, if directory { "/" } else { "" });
        format!("{root}{}{end}", components.join("/"))
    })
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab]{1,3}", 1..7).prop_map(|components| format!("/{}", components.join("/")))
}

/// By definition, slowly: every `**` is tried with every number of components.
fn slow_match(pattern: &[&str], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => true,
        Some((&"**", rest)) => (0..=path.len()).any(|skip| slow_match(rest, &path[skip..])),
        Some((component, rest)) => path.split_first().is_some_and(|(name, below)| {
            let glob = super::glob::Glob::new(component).expect("valid");
            glob.matches(name.as_bytes()) && slow_match(rest, below)
        }),
    }
}

proptest! {
    #[test]
    fn runs_give_what_the_definition_gives(pattern in pattern(), path in path()) {
        let pattern = pattern.trim_end_matches('/');
        let components: Vec<&str> = path[1..].split('/').collect();
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        let starts = if pattern.starts_with('/') { 0..1 } else { 0..components.len() };
        let expected = starts.into_iter().any(|start| slow_match(&parts, &components[start..]));
        prop_assert_eq!(matches(&[pattern], &path, true), expected);
    }

    #[test]
    fn a_matched_directory_covers_all_below(texts in proptest::collection::vec(pattern(), 1..6), path in path(), below in path()) {
        let patterns = Patterns::new(texts.iter().map(String::as_str)).expect("valid");
        if patterns.matches(Path::new(&path), true) {
            let deeper = format!("{path}{below}");
            prop_assert!(patterns.matches(Path::new(&deeper), false));
        }
    }

    #[test]
    fn what_matches_may_match_below_everything_above(
        texts in proptest::collection::vec((any::<bool>(), pattern()), 1..6),
        path in path(),
    ) {
        let texts: Vec<String> =
            texts.into_iter().map(|(negated, text)| if negated { format!("!{text}") } else { text }).collect();
        let patterns = Patterns::new(texts.iter().map(String::as_str)).expect("valid");
        if patterns.matches(Path::new(&path), false) {
            for above in Path::new(&path).ancestors().skip(1) {
                prop_assert!(patterns.may_match_below(above), "{}", above.display());
            }
        }
    }

    #[test]
    fn a_list_without_negation_matches_what_one_of_them_matches(
        texts in proptest::collection::vec(pattern(), 1..6),
        path in path(),
    ) {
        let all = Patterns::new(texts.iter().map(String::as_str)).expect("valid");
        let any = texts.iter().any(|text| matches(&[text], &path, false));
        prop_assert_eq!(all.matches(Path::new(&path), false), any);
        prop_assert_eq!(is_reached(&all, Path::new(&path)), !any);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,20}", path in path()) {
        if let Ok(patterns) = Patterns::new([text.as_str()]) {
            patterns.matches(Path::new(&path), false);
            patterns.may_match_below(Path::new(&path));
        }
    }
}
