//! What a snapshot is made of: keys and values, each behind its length.

use std::io::{self, Read, Write};

/// Longer than what an operation has room for.
const BYTES_MAX: u32 = 2 << 20;

pub(crate) fn write(text: &str, out: &mut dyn Write) -> io::Result<()> {
    let length = u32::try_from(text.len())
        .ok()
        .filter(|length| *length <= BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("a key or value is too long"))?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(text.as_bytes())
}

/// The next one; `None` at the end.
pub(crate) fn read(from: &mut dyn Read) -> io::Result<Option<String>> {
    let mut length = Vec::new();
    from.take(4).read_to_end(&mut length)?;
    let Some(length) = length.first_chunk() else {
        return match length.len() {
            0 => Ok(None),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
    };
    let length = u32::from_le_bytes(*length);
    if length > BYTES_MAX {
        return Err(io::Error::other("this is no snapshot of a key-value store"));
    }
    let mut text = String::new();
    from.take(length.into()).read_to_string(&mut text)?;
    if u64::from(length) > text.len() as u64 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mut bytes = Vec::new();
        for text in ["key", "", "välue"] {
            write(text, &mut bytes).unwrap();
        }
        let mut from = &bytes[..];
        let mut texts = Vec::new();
        while let Some(text) = read(&mut from).unwrap() {
            texts.push(text);
        }
        assert_eq!(texts, ["key", "", "välue"]);
        for length in 1..7 {
            assert!(read(&mut &bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(read(&mut &[0xff; 9][..]).is_err());
    }
}
