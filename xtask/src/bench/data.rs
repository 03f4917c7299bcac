//! The data sets of the benchmark: small files, an SQL dump, big files; from fixed seeds.
//!
//! What counts is how well they compress and that they do not repeat themselves, since that decides how much each
//! stage of a backup program has to do. They are made once and kept; a file beside each says of which generation
//! it is, and is missing while it is being written.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::random::{Random, Vocabulary};

/// Raised whenever a generator changes, so that stale data is made anew.
const VERSION: u32 = 1;

/// Which data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Set {
    /// 80,000 files of 12 kB on average in nested directories: sources and pages, some pictures, some copies.
    Small,
    /// One SQL dump of 5 million rows.
    Dump,
    /// Four files: two of random bytes, one like binaries, one like logs.
    Big,
}

impl Set {
    pub(crate) const ALL: [Set; 3] = [Set::Small, Set::Dump, Set::Big];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Set::Small => "small",
            Set::Dump => "dump",
            Set::Big => "big",
        }
    }

    /// For the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Set::Small => "small files",
            Set::Dump => "SQL dump",
            Set::Big => "big files",
        }
    }
}

/// A data set on the disk.
pub(crate) struct Data {
    pub(crate) set: Set,
    /// What is backed up.
    pub(crate) source: PathBuf,
    marker: PathBuf,
    /// One of `scale` parts of the full size.
    scale: usize,
    vocabulary: Vocabulary,
}

impl Data {
    /// Makes the data set below `directory`, unless it is there.
    pub(crate) fn prepare(directory: &Path, set: Set, scale: usize) -> Result<Data> {
        let data = Data {
            set,
            source: directory.join(set.name()),
            marker: directory.join(format!("{}.generation", set.name())),
            scale,
            vocabulary: Vocabulary::new(6000),
        };
        if (0..2).any(|generation| data.is_at(generation)) {
            return Ok(data);
        }
        println!("xtask: making the data set {}", data.source.display());
        if data.source.exists() {
            fs::remove_dir_all(&data.source).with_context(|| format!("removing {}", data.source.display()))?;
        }
        fs::create_dir_all(&data.source).with_context(|| format!("creating {}", data.source.display()))?;
        match set {
            Set::Small => data.small_files(0..data.small_file_count(), 0),
            Set::Dump => data.dump(0),
            Set::Big => data.big_files(),
        }
        .with_context(|| format!("writing {}", data.source.display()))?;
        data.mark(0)?;
        Ok(data)
    }

    /// Brings the data to a generation: 0 is what `prepare` made; in 1, 1 % of the files or rows differ from that.
    /// Files are written over in place, since deleting and creating would be charged to whoever comes next.
    pub(crate) fn write_generation(&self, generation: u64) -> Result<()> {
        if self.set == Set::Big || self.is_at(generation) {
            return Ok(());
        }
        fs::remove_file(&self.marker).with_context(|| format!("removing {}", self.marker.display()))?;
        match self.set {
            Set::Small => self.small_files((0..self.small_file_count()).step_by(100), generation),
            Set::Dump => self.dump(generation),
            Set::Big => Ok(()),
        }
        .with_context(|| format!("changing {}", self.source.display()))?;
        self.mark(generation)
    }

    fn is_at(&self, generation: u64) -> bool {
        fs::read_to_string(&self.marker).is_ok_and(|found| found == self.description(generation))
    }

    fn mark(&self, generation: u64) -> Result<()> {
        fs::write(&self.marker, self.description(generation))
            .with_context(|| format!("writing {}", self.marker.display()))
    }

    fn description(&self, generation: u64) -> String {
        format!("generator {VERSION}, one of {} parts, generation {generation}\n", self.scale)
    }

    fn small_file_count(&self) -> usize {
        80_000 / self.scale
    }

    fn small_files(&self, indexes: impl Iterator<Item = usize>, generation: u64) -> std::io::Result<()> {
        let mut content = Vec::new();
        for index in indexes {
            content.clear();
            let directory = self.source.join(format!(
                "project-{:02}/module-{:02}/part-{}",
                index / 4000,
                index / 200 % 20,
                index / 20 % 10
            ));
            fs::create_dir_all(&directory)?;
            let mut random = Random::new(index as u64);
            // One file in six is a copy of an earlier one, as vendored sources are.
            let copy = index > 100 && random.below(6) == 0;
            let original = if copy { random.below(index) } else { index };
            let extension = small_file(&self.vocabulary, original as u64, &mut content);
            if generation > 0 {
                let place = content.len() / 3;
                content.splice(place..place, format!("\n// change {generation} of {index}\n").into_bytes());
            }
            fs::write(directory.join(format!("file-{:02}.{extension}", index % 20)), &content)?;
        }
        Ok(())
    }

    fn dump(&self, generation: u64) -> std::io::Result<()> {
        const ROWS: usize = 5_350_000;
        const PLACES: usize = 200;
        let rows = ROWS / self.scale;
        let (apart, changed) = (rows / PLACES, rows / PLACES / 100);
        let mut out = BufWriter::with_capacity(1 << 20, File::create(self.source.join("dump.sql"))?);
        let mut row = Vec::new();
        for index in 0..rows {
            row.clear();
            if index % 500 == 0 {
                row.extend_from_slice(b"INSERT INTO `orders` VALUES\n");
            }
            let seed = if index % apart < changed { generation << 40 } else { 0 };
            dump_row(&self.vocabulary, index, &mut Random::new(seed + index as u64), &mut row);
            row.extend_from_slice(if index % 500 == 499 { b";\n" } else { b",\n" });
            out.write_all(&row)?;
        }
        out.flush()
    }

    fn big_files(&self) -> std::io::Result<()> {
        let size = 1_075_000_000 / self.scale;
        type Generator = fn(&Vocabulary, &mut Random, &mut Vec<u8>);
        let random_bytes: Generator = |_, random, out| random.bytes(out, 1 << 16);
        let files: [(&str, Generator); 4] = [
            ("random-1.bin", random_bytes),
            ("random-2.bin", random_bytes),
            ("programs.img", machine_code),
            ("server.log", log_line),
        ];
        let mut piece = Vec::new();
        for (number, (name, generate)) in files.into_iter().enumerate() {
            let mut random = Random::new(0x0062_6967 + ((number as u64) << 32));
            let mut out = BufWriter::with_capacity(1 << 20, File::create(self.source.join(name))?);
            let mut written = 0;
            while written < size {
                piece.clear();
                generate(&self.vocabulary, &mut random, &mut piece);
                piece.truncate(size - written);
                out.write_all(&piece)?;
                written += piece.len();
            }
            out.flush()?;
        }
        Ok(())
    }
}

/// Appends one small file, and says its extension.
fn small_file(vocabulary: &Vocabulary, seed: u64, out: &mut Vec<u8>) -> &'static str {
    let mut random = Random::new(seed ^ 0x0073_6d61_6c6c);
    let size = match random.below(100) {
        0..57 => random.between(200, 4_000),
        57..88 => random.between(4_000, 20_000),
        88..99 => random.between(20_000, 56_000),
        _ => random.between(60_000, 500_000),
    };
    if random.below(100) < 3 {
        random.bytes(out, size);
        return "png";
    }
    source_code(vocabulary, &mut random, out, size);
    "php"
}

/// Appends what looks like a program's source: few names, used often, in the same few shapes.
fn source_code(vocabulary: &Vocabulary, random: &mut Random, out: &mut Vec<u8>, size: usize) {
    const SHAPES: [&str; 12] = [
        "        $this->@ = $this->@->get@('@');\n",
        "        if ($@ === null) {\n            return $this->@;\n        }\n",
        "    /**\n     * @ the @ of a @.\n     *\n     * @return string\n     */\n",
        "    public function @(array $@, string $@): string\n    {\n",
        "        return $this->@($@, $@);\n    }\n\n",
        "        foreach ($this->@ as $@ => $@) {\n            $@[] = $@->@();\n        }\n",
        "use App\\@\\@\\@;\n",
        "        $@ = new @($this->@, '@', #);\n",
        "    private $@ = '@';\n",
        "        throw new InvalidArgumentException('The @ @ of the @ is @.');\n",
        "            '@' => #,\n",
        "        // @ @ @ @ @ @ @ @\n",
    ];
    let names: Vec<&str> = (0..14 + size / 700).map(|_| vocabulary.word(random)).collect();
    let end = out.len() + size;
    while out.len() < end {
        for byte in SHAPES[random.below(SHAPES.len())].bytes() {
            match byte {
                b'@' => out.extend_from_slice(names[random.skewed_below(names.len())].as_bytes()),
                b'#' => out.extend_from_slice(random.below(100).to_string().as_bytes()),
                byte => out.push(byte),
            }
        }
    }
    out.truncate(end);
}

/// Appends one row of a table of orders, some 200 bytes.
fn dump_row(vocabulary: &Vocabulary, index: usize, random: &mut Random, out: &mut Vec<u8>) {
    let mut field = |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("memory takes every write");
    let (first, last) = (vocabulary.word(random), vocabulary.word(random));
    field(format_args!("({index},'{first} {last}','{first}.{last}@mail{}.example',", random.below(9)));
    field(format_args!("'20{:02}-{:02}-{:02} ", random.between(15, 26), random.between(1, 13), random.between(1, 29)));
    field(format_args!("{:02}:{:02}:{:02}',", random.below(24), random.below(60), random.below(60)));
    field(format_args!("{}.{:02},'", random.below(500), random.below(100)));
    field(format_args!("{:08x}','", random.next() >> 32));
    let words = random.between(9, 21);
    vocabulary.words(random, out, words);
    out.extend_from_slice(b"',NULL,0)");
}

/// Appends a function's worth of what looks like machine code: common instructions with random operands.
fn machine_code(_: &Vocabulary, random: &mut Random, out: &mut Vec<u8>) {
    const COMMON: [&[u8]; 12] = [
        &[0x48, 0x89, 0xe5],
        &[0x48, 0x8b, 0x45],
        &[0x55, 0x41, 0x57, 0x41, 0x56, 0x53],
        &[0x0f, 0x1f, 0x44, 0x00, 0x00],
        &[0xe8],
        &[0x48, 0x83, 0xec],
        &[0x31, 0xc0],
        &[0x0f, 0x84],
        &[0x48, 0x8d, 0x3d],
        &[0xc7, 0x44, 0x24],
        &[0x5b, 0x41, 0x5e, 0x41, 0x5f, 0x5d, 0xc3],
        &[0xcc, 0xcc, 0xcc, 0xcc],
    ];
    for _ in 0..random.between(20, 200) {
        out.extend_from_slice(COMMON[random.skewed_below(COMMON.len())]);
        match random.below(4) {
            0 => out.push(random.next() as u8 & 0x7f),
            1 => out.extend_from_slice(&(random.next() as u16).to_le_bytes()),
            2 => random.bytes(out, 3),
            _ => {}
        }
        if random.below(12) == 0 {
            out.extend_from_slice(&[0; 24]);
        }
    }
}

/// Appends a line of a web server's log.
fn log_line(vocabulary: &Vocabulary, random: &mut Random, out: &mut Vec<u8>) {
    let mut field = |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("memory takes every write");
    field(format_args!("192.0.2.{} - - [{:02}/Mar/2026:", random.skewed_below(250), random.between(1, 29)));
    field(format_args!("{:02}:{:02}:{:02} +0000] ", random.below(24), random.below(60), random.below(60)));
    let (section, page) = (vocabulary.word(random), vocabulary.word(random));
    field(format_args!(
        "\"GET /{section}/{page}?id={:x} HTTP/1.1\" 200 {} ",
        random.next() >> 40,
        random.below(90_000)
    ));
    field(format_args!("\"https://shop.example/{}\" \"Mozilla/5.0 (X11; Linux x86_64)\"\n", vocabulary.word(random)));
}
