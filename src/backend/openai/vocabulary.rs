//! Words that a tokenizer elsewhere makes exactly one token of, so that texts of a length can be made without having it.

use crate::sample::key;

/// Frequent English words: nearly every one is one token in every vocabulary in use.
const CANDIDATES: &str = "the of and to in is that it was for on are as with his they at be this from have or by one had \
    not but what all were when we there can an your which their said if do will each about how up out them then she many \
    some so these would other into has more her two like him see time could no make than first been its who now people my \
    made over did down only way find use may water long little very after words called just where most know get through \
    back much before go good new write our used me man too any day same right look think also around another came come \
    work three word must because does part even place well such here take why things help put years different away again \
    off went old number great tell men say small every found still between name should home big give air line set own \
    under read last never us left end along while might next sound below saw something thought both few those always \
    looked show large often together asked house world going want school important until form food keep children feet \
    land side without boy once animals life enough took sometimes four head above kind began almost live page got earth \
    need far hand high year mother light parts country father let night following picture being study second eyes soon \
    times story boys since white days ever paper hard near sentence better best across during today others however sure \
    means knew try told young miles sun ways thing whole hear example heard several change answer room sea against top \
    turned learn point city play toward five using himself usually money seen car morning body upon family later turn \
    move face door cut done group true half red fish plants black eat short run book gave order open ground cold really \
    table remember tree course front space inside ago sad early learned brought close nothing though idea lived became \
    add become grow draw yet less wind behind cannot letter among able dog shown mean English rest perhaps certain six \
    feel fire ready green built special ran full town complete oh person hot anything hold state list stood hundred ten \
    fast felt kept notice strong voice probably area horse matter stand box start class piece surface river common stop \
    whether";

/// How many words a vocabulary needs, so that texts differ.
const LEAST: usize = 32;
/// How many are enough.
const ENOUGH: usize = 256;
/// How many words that can begin a text are looked for.
const OPENERS: usize = 12;

/// Words of one token each, and their ids.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Vocabulary {
    /// Words that are one token behind another word.
    words: Vec<&'static str>,
    /// Their ids there.
    ids: Vec<u32>,
    /// Positions of the words that are one token at the start of a text too.
    openers: Vec<usize>,
}

impl Vocabulary {
    /// Asks `tokenize` for the ids of texts until the words are known: some dozen questions.
    ///
    /// # Errors
    /// What `tokenize` says, or that too few words are one token.
    pub(super) fn learn(mut tokenize: impl FnMut(&str) -> Result<Vec<u32>, String>) -> Result<Self, String> {
        let candidates: Vec<&'static str> = CANDIDATES.split_whitespace().collect();
        let opener = "the";
        let lead = tokenize(opener)?.len();
        let mut found = Self { words: Vec::new(), ids: Vec::new(), openers: Vec::new() };
        let mut open: Vec<&[&'static str]> = candidates.chunks(64).collect();
        open.reverse();
        while let Some(words) = open.pop().filter(|_| found.words.len() < ENOUGH) {
            let ids = tokenize(&format!("{opener} {}", words.join(" ")))?;
            if ids.len() == lead + words.len() {
                found.words.extend_from_slice(words);
                found.ids.extend_from_slice(&ids[lead..]);
            } else if words.len() > 1 {
                let (left, right) = words.split_at(words.len() / 2);
                open.extend([right, left]);
            }
        }
        if found.words.len() < LEAST {
            return Err(format!("only {} of its words are one token each", found.words.len()));
        }
        for (index, word) in found.words.iter().enumerate().take(4 * OPENERS) {
            if tokenize(word)?.len() == 1 {
                found.openers.push(index);
            }
            if found.openers.len() == OPENERS {
                break;
            }
        }
        if found.openers.is_empty() {
            return Err("no word is one token at the start of a text".into());
        }
        for seed in 0..2 {
            let (wanted, came) = (48, tokenize(&found.text_of(48, seed))?.len());
            if came != wanted {
                return Err(format!("a text made for {wanted} tokens has {came}"));
            }
        }
        Ok(found)
    }

    /// A text of so many tokens: a pure function of `seed`, with the properties that
    /// [`Tokenizer::text_of`](crate::tokenizer::Tokenizer::text_of) asks for.
    pub(super) fn text_of(&self, tokens: u32, seed: u64) -> String {
        let mut text = String::with_capacity(tokens as usize * 6);
        for index in 0..u64::from(tokens) {
            let drawn = key(&[seed, index]);
            if index > 0 {
                text.push(' ');
                text.push_str(self.words[drawn as usize % self.words.len()]);
            } else {
                text.push_str(self.words[self.openers[drawn as usize % self.openers.len()]]);
            }
        }
        text
    }

    /// Appends so many ids, a pure function of `seed`.
    pub(super) fn draw(&self, tokens: u32, seed: u64, ids: &mut Vec<u32>) {
        ids.extend(
            (0..u64::from(tokens)).map(|index| self.ids[key(&[seed, index]) as usize % self.ids.len()]),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer of pieces of four letters, a word's space part of its first piece.
    fn pieces(text: &str) -> Vec<u32> {
        let words = text.split(' ').enumerate().flat_map(|(at, word)| {
            let spaced = u32::from(at > 0);
            word.as_bytes()
                .chunks(4)
                .map(|piece| {
                    piece
                        .iter()
                        .fold(spaced, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte)))
                })
                .collect::<Vec<_>>()
        });
        words.collect()
    }

    #[test]
    fn it_finds_the_words_of_one_token() {
        let mut questions = 0;
        let vocabulary = Vocabulary::learn(|text| {
            questions += 1;
            Ok(pieces(text))
        })
        .unwrap();
        assert!(vocabulary.words.iter().all(|word| word.len() <= 4));
        assert!((200..400).contains(&vocabulary.words.len()), "{} words", vocabulary.words.len());
        assert!(questions < 700, "{questions} questions");
        for (tokens, seed) in [(1, 0), (2, 1), (100, 2), (1000, 3)] {
            assert_eq!(pieces(&vocabulary.text_of(tokens, seed)).len(), tokens as usize);
        }
        let mut ids = Vec::new();
        vocabulary.draw(50, 7, &mut ids);
        assert_eq!(ids.len(), 50);
    }

    #[test]
    fn a_tokenizer_of_letters_has_no_such_words() {
        let letters = |text: &str| Ok(text.bytes().map(u32::from).collect());
        assert!(Vocabulary::learn(letters).unwrap_err().contains("one token"));
        assert_eq!(Vocabulary::learn(|_| Err("down".into())), Err("down".into()));
    }
}
