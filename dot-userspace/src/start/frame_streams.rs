//! Frame Streams over a connection: the control frames with which writer and reader begin and end, around data
//! frames.
//!
//! Before: a connection to a reader. After: the reader expects frames of dnstap, or has confirmed that it has all of
//! them.
//! Holds: nothing. Never: reads more of a control frame than [`CONTROL_OCTETS_MAX`].
//!
//! Source: fstrm (github.com/farsightsec/fstrm), fstrm/control.h: an escape of 4 octets 0, the frame's length, its type, fields.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The content type of the frames.
const CONTENT: &[u8] = b"protobuf:dnstap.Dnstap";
/// Longest control frame (FSTRM_CONTROL_FRAME_LENGTH_MAX).
const CONTROL_OCTETS_MAX: u32 = 512;
/// The only defined field.
const FIELD_CONTENT: u32 = 1;

/// Types of control frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Control {
    Accept = 1,
    Start = 2,
    Stop = 3,
    Ready = 4,
    Finish = 5,
}

/// Agrees with the reader on the content type; the reader then expects data frames.
///
/// # Errors
/// The connection failed, or the reader does not accept dnstap.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(&frame(Control::Ready, true)).await?;
    stream.flush().await?;
    let (kind, contents) = read(stream).await?;
    if kind != Control::Accept as u32 || !(contents.is_empty() || contents.iter().any(|one| one == CONTENT)) {
        return Err(io::Error::other("the reader does not accept dnstap"));
    }
    stream.write_all(&frame(Control::Start, true)).await?;
    stream.flush().await
}

/// Ends the stream, and waits until the reader confirms that it has all frames.
///
/// # Errors
/// The connection failed.
pub(super) async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(&frame(Control::Stop, false)).await?;
    stream.flush().await?;
    let (kind, _) = read(stream).await?;
    if kind == Control::Finish as u32 { Ok(()) } else { Err(io::Error::other("no FINISH")) }
}

fn frame(kind: Control, has_content: bool) -> Vec<u8> {
    let mut body = (kind as u32).to_be_bytes().to_vec();
    if has_content {
        body.extend(FIELD_CONTENT.to_be_bytes());
        body.extend(u32::try_from(CONTENT.len()).unwrap_or_default().to_be_bytes());
        body.extend(CONTENT);
    }
    let length = u32::try_from(body.len()).unwrap_or_default();
    [&[0; 4], &length.to_be_bytes()[..], &body].concat()
}

/// Reads one control frame: its type, and its content types.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(u32, Vec<Vec<u8>>)> {
    let broken = || io::Error::other("the reader does not speak Frame Streams");
    let (escape, length) = (stream.read_u32().await?, stream.read_u32().await?);
    if escape != 0 || !(4..=CONTROL_OCTETS_MAX).contains(&length) {
        return Err(broken());
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    let (kind, mut rest) = body.split_first_chunk::<4>().ok_or_else(broken)?;
    let mut contents = Vec::new();
    while let Some((field, after)) = rest.split_first_chunk::<4>() {
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(broken)?;
        let (octets, after) =
            after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(broken)?;
        if u32::from_be_bytes(*field) == FIELD_CONTENT {
            contents.push(octets.to_vec());
        }
        rest = after;
    }
    Ok((u32::from_be_bytes(*kind), contents))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(octets: &[u8]) -> io::Result<(u32, Vec<Vec<u8>>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut octets = octets;
        runtime.block_on(read(&mut octets))
    }

    /// Goal: a control frame is read as it is written, and no input of a reader makes dotd read much, or panic.
    /// Method: dotd's own frames; each prefix of one; invalid lengths; a field that is longer than its frame; another
    /// content type.
    ///
    #[test]
    fn control_frames_are_read_within_bounds() {
        let ready = frame(Control::Ready, true);
        assert_eq!(ready[..12], [0, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0, 4]);
        assert_eq!(said(&ready).unwrap(), (4, vec![CONTENT.to_vec()]));
        assert_eq!(said(&frame(Control::Stop, false)).unwrap(), (3, vec![]));
        assert!((0..ready.len()).all(|length| said(&ready[..length]).is_err()));
        for length in [0_u32, 3, 513, u32::MAX] {
            let mut wrong = ready.clone();
            wrong[4..8].copy_from_slice(&length.to_be_bytes());
            assert!(said(&wrong).is_err(), "{length}");
        }
        let mut longer = ready.clone();
        longer[19] += 1;
        assert!(said(&longer).is_err());
        let mut data = ready;
        data[3] = 1;
        assert!(said(&data).is_err(), "a data frame is no control frame");
    }

    /// Goal: the writer continues only with a reader that accepts dnstap, and ends in order. Method: readers that
    /// answer each step as they should, and one with another content type.
    #[test]
    fn writer_and_reader_agree() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(4096);
            let reader = async {
                assert_eq!(read(&mut theirs).await.unwrap(), (4, vec![CONTENT.to_vec()]));
                theirs.write_all(&frame(Control::Accept, true)).await.unwrap();
                assert_eq!(read(&mut theirs).await.unwrap().0, 2);
                assert_eq!(read(&mut theirs).await.unwrap(), (3, vec![]));
                theirs.write_all(&frame(Control::Finish, false)).await.unwrap();
            };
            let writer = async {
                open(&mut ours).await.unwrap();
                close(&mut ours).await.unwrap();
            };
            tokio::join!(reader, writer);
            let (mut ours, mut theirs) = tokio::io::duplex(4096);
            let mut other = frame(Control::Accept, true);
            other[20] = b'x';
            theirs.write_all(&other).await.unwrap();
            assert!(open(&mut ours).await.unwrap_err().to_string().contains("does not accept dnstap"));
        });
    }
}
