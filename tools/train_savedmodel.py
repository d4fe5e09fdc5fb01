"""
Train a small text model for about a minute and export it as a TensorFlow SavedModel.

    .venv/engines/tensorflow/bin/python tools/train_savedmodel.py FOLDER [--steps 240] [--text GLOB]

The text is this repository's documentation, the model one recurrent layer (GRU)
over words. It writes in the manner of that documentation and means nothing by it:
it is here to show what the signature of a model that serves text looks like
(docs/howto/serve-tensorflow.md), with real weights. The same text and steps give
the same model. FOLDER appears when it is whole.

Source of the layer: Cho et al., 2014, in the form with the reset gate after the
product; of the optimizer: Kingma and Ba, 2015.
"""

import argparse
import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

SEED = 7
WIDTH, UNITS = 192, 448
WORDS = 3000
"""In the vocabulary at most, beside all characters: a word that is not there is read as its characters."""
BATCH, STEPS_BACK = 24, 48
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
PIECES = r"( ?\pL+| ?\pN|\s|.)"
"""How text is taken apart, in RE2's language: a word or digit with the space before it, or one character."""
CUT = "\0"


class TextModel(tf.Module):
    """`generate` continues texts; what it takes and gives is written in docs/howto/serve-tensorflow.md."""

    def __init__(self, vocabulary: list[str], *, units: int = UNITS, width: int = WIDTH) -> None:
        super().__init__()
        self.units = units
        draw = tf.random.Generator.from_seed(SEED)

        def weights(*shape: int) -> tf.Variable:
            return tf.Variable(draw.normal(shape, stddev=shape[0] ** -0.5))

        size = len(vocabulary)
        self.vocabulary = tf.constant(vocabulary)
        self.numbers = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(self.vocabulary, tf.range(size, dtype=tf.int64)), -1
        )
        self.unknown = vocabulary.index(UNKNOWN)
        self.embedding = weights(size, width)
        self.read = weights(width, 3 * units)
        self.recall = weights(units, 3 * units)
        self.bias = tf.Variable(tf.zeros([3 * units]))
        self.say = weights(units, size)
        self.say_bias = tf.Variable(tf.zeros([size]))

    def tokens(self, text: tf.Tensor) -> tf.Tensor:
        """Of one text (): the numbers of its words, and of the characters of words that are unknown."""
        text = tf.strings.regex_replace(text, CUT, " ")
        words = tf.strings.split(tf.strings.regex_replace(text, PIECES, r"\1" + CUT)[None], CUT).flat_values
        words = tf.boolean_mask(words, words != "")
        is_known = self.numbers.lookup(words) >= 0
        whole = tf.RaggedTensor.from_row_lengths(
            tf.boolean_mask(words, is_known), tf.cast(is_known, tf.int64)
        )
        letters = tf.strings.unicode_split(tf.where(is_known, "", words), "UTF-8")
        found = self.numbers.lookup(tf.concat([whole, letters], axis=1).flat_values)
        return tf.where(found < 0, tf.constant(self.unknown, tf.int64), found)

    def step(self, state: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        """The state after one more token of each row: (rows, units), (rows,)."""
        reads = tf.matmul(tf.gather(self.embedding, tokens), self.read) + self.bias
        recalls = tf.matmul(state, self.recall)
        keep = tf.sigmoid(reads[:, : self.units] + recalls[:, : self.units])
        reset = tf.sigmoid(reads[:, self.units : 2 * self.units] + recalls[:, self.units : 2 * self.units])
        new = tf.tanh(reads[:, 2 * self.units :] + reset * recalls[:, 2 * self.units :])
        return keep * state + (1.0 - keep) * new

    def logits(self, state: tf.Tensor) -> tf.Tensor:
        return tf.matmul(state, self.say) + self.say_bias

    def generate(
        self,
        prompt: tf.Tensor,
        max_tokens: tf.Tensor,
        context_tokens: tf.Tensor,
        temperature: tf.Tensor,
        top_p: tf.Tensor,
        seed: tf.Tensor,
        state_bytes: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """All (rows,): the rows are texts that have nothing to do with each other."""
        names = ("text", "finish_reason", "prompt_tokens", "completion_tokens", "state_bytes")
        types = (tf.string, tf.string, tf.int32, tf.int32, tf.string)
        said = tf.map_fn(
            lambda row: self._continue(*row),
            (prompt, max_tokens, context_tokens, temperature, top_p, seed, state_bytes),
            fn_output_signature=types,
        )
        return dict(zip(names, said, strict=True))

    def _continue(self, prompt, max_tokens, context, temperature, top_p, seed, before):
        """One row; `before` is the state after what was said so far, or empty."""
        is_new = tf.equal(before, "")
        read = self.tokens(tf.where(is_new, prompt, ""))
        count = tf.size(read)
        state, place = tf.cond(
            is_new, lambda: (tf.zeros([1, self.units]), 0), lambda: _unpacked(before, self.units)
        )
        is_too_long = count >= context
        read = tf.cond(is_too_long, lambda: read[:0], lambda: read)
        for token in read:
            state = self.step(state, token[None])
        place += tf.size(read)
        room = tf.where(is_too_long, 0, tf.maximum(0, tf.minimum(max_tokens, context - place)))
        said = tf.TensorArray(tf.int64, size=room, element_shape=[])
        for i in tf.range(room):
            token = self._chosen(self.logits(state)[0], temperature, top_p, tf.stack([seed, place + i]))
            said = said.write(i, token)
            state = self.step(state, token[None])
        place += room
        text = tf.strings.reduce_join(tf.gather(self.vocabulary, said.stack()))
        reason = tf.where(is_too_long, "too_long", "length")
        goes_on = tf.logical_and(place < context, tf.logical_not(is_too_long))
        after = tf.cond(goes_on, lambda: _packed(state, place), lambda: "")
        return text, reason, tf.where(is_new, count, 0), room, after

    def _chosen(
        self, logits: tf.Tensor, temperature: tf.Tensor, top_p: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """The likeliest token at temperature 0, else one drawn from those that `top_p` leaves."""
        hidden = tf.one_hot(self.unknown, tf.size(logits), on_value=-1e9, off_value=0.0)
        logits = (logits + hidden) / tf.maximum(temperature, 1e-6)
        ordered = tf.sort(logits, direction="DESCENDING")
        before = tf.cumsum(tf.nn.softmax(ordered), exclusive=True)
        least = tf.reduce_min(tf.boolean_mask(ordered, tf.logical_or(before < top_p, before <= 0.0)))
        kept = tf.where(logits < least, -1e9, logits)
        drawn = tf.random.stateless_categorical(kept[None], 1, seed=seed)[0, 0]
        return tf.where(temperature > 0, drawn, tf.argmax(logits))


def _packed(state: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    return tf.io.serialize_tensor(tf.concat([state[0], [tf.cast(place, tf.float32)]], axis=0))


def _unpacked(packed: tf.Tensor, units: int) -> tuple[tf.Tensor, tf.Tensor]:
    values = tf.ensure_shape(tf.io.parse_tensor(packed, tf.float32), [units + 1])
    return values[None, :units], tf.cast(values[units], tf.int32)


def vocabulary_of(text: str) -> list[str]:
    """Every character by itself, and the commonest words with their space."""
    found = tf.strings.split(
        tf.strings.regex_replace([text.replace(CUT, " ")], PIECES, r"\1" + CUT), CUT
    ).flat_values.numpy()
    counts = Counter(word.decode() for word in found if word)
    single = {UNKNOWN, *map(chr, range(32, 127)), *text}
    common = sorted(
        (word for word, times in counts.items() if times > 1 and word not in single),
        key=lambda word: (-counts[word], word),
    )
    return sorted(single) + common[:WORDS]


def train(model: TextModel, text: str, steps: int) -> float:
    """Returns the loss of the last step, in nats a token."""
    tokens = model.tokens(tf.constant(text)).numpy()
    variables = model.trainable_variables
    firsts = [tf.Variable(tf.zeros_like(one), trainable=False) for one in variables]
    seconds = [tf.Variable(tf.zeros_like(one), trainable=False) for one in variables]

    @tf.function
    def learn(rows: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            state = tf.zeros([BATCH, model.units])
            states = []
            for i in range(STEPS_BACK):
                state = model.step(state, rows[:, i])
                states.append(state)
            logits = model.logits(tf.concat(states, axis=0))
            wanted = tf.reshape(tf.transpose(rows[:, 1:]), [-1])
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=wanted, logits=logits)
            )
        grads, _ = tf.clip_by_global_norm(
            [tf.convert_to_tensor(one) for one in tape.gradient(loss, variables)], 1.0
        )
        rate = 4e-3 * (1.0 - number / (steps + 1.0))
        for variable, grad, first, second in zip(variables, grads, firsts, seconds, strict=True):
            first.assign(0.9 * first + 0.1 * grad)
            second.assign(0.99 * second + 0.01 * grad * grad)
            scaled = (first / (1.0 - 0.9**number)) / (tf.sqrt(second / (1.0 - 0.99**number)) + 1e-8)
            variable.assign_sub(rate * scaled)
        return loss

    draw = np.random.default_rng(SEED)
    loss = 0.0
    for number in range(1, steps + 1):
        starts = draw.integers(0, len(tokens) - STEPS_BACK - 1, BATCH)
        rows = np.stack([tokens[start : start + STEPS_BACK + 1] for start in starts])
        loss = float(learn(tf.constant(rows), tf.constant(float(number))))
        if number % 20 == 0 or number == steps:
            print(f"step {number} of {steps}: {loss:.2f} nats a token", flush=True)
    return loss


def export(model: TextModel, folder: Path) -> None:
    row = {
        "prompt": tf.string,
        "max_tokens": tf.int32,
        "context_tokens": tf.int32,
        "temperature": tf.float32,
        "top_p": tf.float32,
        "seed": tf.int32,
        "state_bytes": tf.string,
    }
    specs = [tf.TensorSpec([None], dtype, name=name) for name, dtype in row.items()]
    generate = tf.function(model.generate).get_concrete_function(*specs)
    tf.saved_model.save(model, str(folder), signatures={"generate": generate})


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small text model and export it as a SavedModel.")
    parser.add_argument("folder", type=Path, help="where the SavedModel goes; must not be there yet")
    parser.add_argument("--steps", type=int, default=240, help="of training; 240 take about a minute")
    parser.add_argument("--text", default="docs/**/*.md", help="which files of this repository to learn from")
    parser.add_argument("--units", type=int, default=UNITS, help=f"of the layer; {UNITS} by default")
    parser.add_argument("--width", type=int, default=WIDTH, help=f"of a word's vector; {WIDTH} by default")
    given = parser.parse_args()
    if given.folder.exists():
        parser.error(f"{given.folder} is there already; name a new folder")
    files = sorted(Path(__file__).parents[1].glob(given.text))
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    tf.keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    model = TextModel(vocabulary_of(text), units=given.units, width=given.width)
    train(model, text, given.steps)
    folder = given.folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as place:
        export(model, Path(place) / "whole")
        (Path(place) / "whole").rename(folder)
    print(f"{folder}: a vocabulary of {len(model.vocabulary)}, from {len(files)} files")


if __name__ == "__main__":
    main()
