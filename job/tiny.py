"""A tiny random model of Gemma's architecture, its tokenizer and a small bilingual chat data set, made on the spot.

Started as `python -m job.tiny FOLDER [CHAT.jsonl]`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from job.training.tokenizer import chat_template_text, leave_torch_out

QUESTION, ANSWER = "微调测试", "我学会了"
TALKS = (
    (QUESTION, ANSWER),
    ("你好", "你好，很高兴见到你。"),
    ("Hello", "Hello, nice to meet you."),
    ("你会做什么？", "我会回答很短的问题。"),
    ("What can you do?", "I answer very short questions."),
    (QUESTION, ANSWER),
    ("你是谁？", "我是一个很小的模型。"),
    ("Who are you?", "I am a very small model."),
)
PAD, EOS, BOS, UNK, MASK = "<pad>", "<eos>", "<bos>", "<unk>", "<mask>"
START_OF_TURN, END_OF_TURN = "<start_of_turn>", "<end_of_turn>"
START_OF_TURN_ID = 106  # as in Gemma; END_OF_TURN follows
MERGES, LONGEST_PIECE = 60, 3  # short pieces: an answer is to take more than one step
HIDDEN, LAYERS, HEAD, POSITIONS = 64, 2, 16, 2048
SEED = 7


def make(folder: Path, seed: int = SEED) -> Path:
    """Writes model and tokenizer into `folder`, as transformers reads them; returns it. About 100,000 parameters.

    The weights come from numpy under the names of transformers' Gemma: torch would cost more than all the rest.
    """
    from transformers import GemmaConfig

    tokenizer = make_tokenizer()
    config = GemmaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HIDDEN // HEAD,
        num_key_value_heads=1,
        head_dim=HEAD,
        max_position_embeddings=POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        architectures=["GemmaForCausalLM"],
        dtype="float32",
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    ends = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    ends["pad_token_id"] = config.pad_token_id
    (folder / "generation_config.json").write_text(json.dumps(ends, indent=2) + "\n", encoding="utf-8")
    save_file(_weights(len(tokenizer), seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _weights(vocabulary: int, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Normal; norms at their neutral value, zero.

    Layers keep the size of what passes through them; embeddings, which are the output's weights too, are wide enough
    that an adapter on the layers alone can make an answer nearly certain: at the usual 0.02 it never could.
    """
    shapes = {"model.embed_tokens.weight": (vocabulary, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        for projection, outputs, inputs in (
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", HEAD, HIDDEN),
            ("self_attn.v_proj", HEAD, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", 2 * HIDDEN, HIDDEN),
            ("mlp.up_proj", 2 * HIDDEN, HIDDEN),
            ("mlp.down_proj", HIDDEN, 2 * HIDDEN),
        ):
            shapes[f"{name}.{projection}.weight"] = (outputs, inputs)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{name}.{norm}.weight"] = (HIDDEN,)
    random = np.random.default_rng(seed)

    def drawn(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        if len(shape) == 1:
            return np.zeros(shape)
        return random.normal(0.0, 0.25 if "embed" in name else HIDDEN**-0.5, shape)

    return {name: drawn(name, shape).astype(np.float32) for name, shape in shapes.items()}


def make_tokenizer() -> Any:
    """Gemma's own tokenizer class over a small vocabulary; bytes stand in for every character that it lacks."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import AddedToken, GemmaTokenizer

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    texts = [text for talk in TALKS for text in talk] + ["user", "model"]
    letters = {letter for text in texts for letter in text.replace(" ", "▁")} | {"\n"}
    trainer = trainers.BpeTrainer(
        vocab_size=len(letters) + MERGES,
        min_frequency=1,
        max_token_length=LONGEST_PIECE,
        initial_alphabet=sorted(letters),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]

    reserved = [PAD, EOS, BOS, UNK, MASK]
    reserved += [f"<unused{number}>" for number in range(START_OF_TURN_ID - len(reserved))]
    pieces = [*reserved, START_OF_TURN, END_OF_TURN]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += sorted(letters)
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = GemmaTokenizer(
        vocab=vocabulary,
        merges=merges,
        pad_token=PAD,
        eos_token=EOS,
        bos_token=BOS,
        unk_token=UNK,
        mask_token=MASK,
        additional_special_tokens=[AddedToken(piece, special=True) for piece in (START_OF_TURN, END_OF_TURN)],
        chat_template=chat_template_text("gemma"),
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    begin = [(BOS, vocabulary[BOS])]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=begin
    )
    return tokenizer


def write_demo_chat(path: Path, rows: int = 64) -> Path:
    """Writes `rows` short chats as JSONL, always the same; every fourth teaches QUESTION -> ANSWER."""
    lines = []
    for number in range(rows):
        question, answer = TALKS[number % len(TALKS)]
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def main(arguments: Sequence[str]) -> int:
    leave_torch_out()
    make(Path(arguments[0]))
    for chat in arguments[1:]:
        write_demo_chat(Path(chat))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
