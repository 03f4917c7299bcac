//! The word that was probably meant.

/// The nearest of some words, if it is near enough to be a slip of the fingers.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let letters = word.chars().count();
    let limit = (letters / 3).max(1).min(letters.saturating_sub(1));
    let near = known.map(|known| (distance(&word.to_lowercase(), &known.to_lowercase(), limit), known));
    near.filter(|(distance, _)| *distance <= limit).min().map(|(_, known)| known)
}

/// How many letters must be inserted, removed, replaced or swapped with their neighbour; anything above `limit` if
/// it is more than that.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            next[j] = replaced.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                next[j] = next[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognized_and_other_words_are_not() {
        let near = |word| nearest(word, ["shop", "blog", "index.php", "Makefile"].into_iter());
        assert_eq!(near("shpo"), Some("shop"));
        assert_eq!(near("makefile"), Some("Makefile"));
        assert_eq!(near("index.html"), None);
        assert_eq!(near("indx.php"), Some("index.php"));
        assert_eq!(near("wiki"), None);
        assert_eq!(near(""), None);
        assert_eq!(nearest("x", ["a"].into_iter()), None);
    }

    #[test]
    fn swapped_letters_are_one_slip() {
        assert_eq!(distance("ab", "ba", 3), 1);
        assert_eq!(distance("", "abc", 3), 3);
        assert_eq!(distance("kitten", "sitting", 9), 3);
        assert_eq!(distance("a", "aaaaa", 2), 3);
    }
}
