"""Records what Hugging Face's Llama computes in float32 of SmolLM2-135M-Instruct's published file.

    python3 -m venv venv
    venv/bin/pip install 'torch==2.2.2' 'numpy<2' 'transformers==4.46.3' accelerate gguf
    venv/bin/python scripts/huggingface-values.py > tests/llama/huggingface.json

Of each of 20 chats: the prompt's tokens, by the file's template in transformers and the pre-tokenizer that the
published tokenizer.json has (digits one by one, then GPT-2's pattern); 40 greedy tokens; after the prompt the logits of 48 tokens; and by how much the likeliest token of each step leads
the next. The tests compare the engine with these values, which nothing of this project has computed.
"""

import json
import sys

import torch
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

FOLDER = "models/smollm2-135m-instruct"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = 40
PROBES = 48

# (system message or None, turns: the user's and the assistant's, the user's last)
CHATS = [
    (None, ["What is the capital of France?"]),
    (None, ["Write one sentence about the sea."]),
    (None, ["How do I boil an egg?"]),
    (None, ["Name three colours."]),
    (None, ["What is 12 times 3?"]),
    (None, ["Why is the sky blue?"]),
    (None, ["Tell me a short story about a dog."]),
    (None, ["Translate 'good morning' into Spanish."]),
    (None, ["List the planets, from the sun outwards."]),
    (None, ["What does 'naïve' mean? And 'déjà vu'?"]),
    (None, ["Give me a recipe for pancakes: 250 g flour, 3 eggs, 500 ml milk."]),
    (None, ["What is a sparse autoencoder?"]),
    (None, ["def add(a, b):\n    return a + b\n\nWhat does this do?"]),
    (None, ["日本の首都はどこですか。"]),
    (None, ["Is 17 a prime number? Answer yes or no."]),
    ("You answer in one word.", ["What colour is grass?"]),
    ("You are a pirate.", ["Where is my hat?"]),
    (None, ["Hi!", "Hello! How can I help you today?", "What is the tallest mountain?"]),
    (None, ["My name is Ada.", "Nice to meet you, Ada!", "What is my name?"]),
    (None, ["Count to five.", "1, 2, 3, 4, 5.", "And backwards?"]),
]


def messages(system, turns):
    opening = [{"role": "system", "content": system}] if system is not None else []
    roles = ["user", "assistant"]
    return opening + [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def tokenizer_of(path):
    fields = GGUFReader(path).fields
    texts = lambda key: [bytes(fields[key].parts[i]).decode() for i in fields[key].data]
    words = texts("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in texts("tokenizer.ggml.merges")]
    inner = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    inner.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    control = [words[at] for at, i in enumerate(types.data) if types.parts[i][0] == 3]
    inner.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in control])
    template = texts("tokenizer.chat_template")[0]
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=template)


def main():
    torch.manual_seed(0)
    tokenizer = tokenizer_of(f"{FOLDER}/{FILE}")
    model = AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=FILE, torch_dtype=torch.float32)
    # The file has no matrix of its own for the head: it is the embedding.
    model.lm_head.weight = model.model.embed_tokens.weight
    model.eval()
    vocabulary = model.config.vocab_size
    probes = torch.randperm(vocabulary)[:PROBES].sort().values.tolist()
    chats = []
    for system, turns in CHATS:
        chat = messages(system, turns)
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)
        said, leads, first = [], [], None
        cache, fed = None, torch.tensor([ids])
        with torch.no_grad():
            for _ in range(TOKENS):
                out = model(fed, past_key_values=cache, use_cache=True)
                cache, logits = out.past_key_values, out.logits[0, -1]
                best = logits.topk(2)
                if first is None:
                    first = [round(float(logits[token]), 5) for token in probes]
                said.append(int(best.indices[0]))
                leads.append(round(float(best.values[0] - best.values[1]), 4))
                fed = best.indices[:1].unsqueeze(0)
        chats.append({"messages": chat, "ids": ids, "said": said, "leads": leads, "logits": first})
        print(repr(tokenizer.decode(said)), file=sys.stderr)
    print('{"probes": ' + json.dumps(probes) + ',\n "chats": [')
    print(",\n".join("  " + json.dumps(chat, ensure_ascii=False) for chat in chats))
    print("]}")


main()
