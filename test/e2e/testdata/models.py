"""Asks for models by the libraries that agents use, one JSON line for each case."""
import json

import anthropic
import openai


def case(name, ask):
    out = {"case": name}
    try:
        out["body"] = ask()
    except (openai.APIStatusError, anthropic.APIStatusError) as e:
        out["status"], out["failed"] = e.status_code, str(e)
    except (openai.APIError, anthropic.APIError) as e:
        out["failed"] = str(e)
    print(json.dumps(out), flush=True)


o = openai.OpenAI(api_key="none", base_url="https://inference.local/v1", max_retries=0)
a = anthropic.Anthropic(api_key="none", base_url="https://inference.local", max_retries=0)
said = [{"role": "user", "content": "hello"}]
shape = {"type": "object", "properties": {"city": {"type": "string"}}}
tools = [{"type": "function", "function": {"name": "weather", "parameters": shape}}]


def chat_streamed(model):
    chunks = o.chat.completions.create(model=model, messages=said, stream=True)
    return "".join(c.choices[0].delta.content for c in chunks if c.choices)


def tool():
    f = o.chat.completions.create(model="any", messages=said, tools=tools).choices[0].message.tool_calls[0].function
    return f.name + f.arguments


def tool_streamed():
    chunks = o.chat.completions.create(model="any", messages=said, tools=tools, stream=True)
    calls = [c.choices[0].delta.tool_calls[0].function for c in chunks if c.choices]
    return "".join((f.name or "") + f.arguments for f in calls)


def message_tool():
    with a.messages.stream(model="any", max_tokens=5, messages=said, tools=[{"name": "weather", "input_schema": shape}]) as s:
        use = s.get_final_message().content[0]
    return use.name + json.dumps(use.input)


def messages_streamed():
    with a.messages.stream(model="any", max_tokens=5, messages=said) as s:
        return "".join(s.text_stream)


case("chat", lambda: o.chat.completions.create(model="any", messages=said).choices[0].message.content)
case("chat, streamed", lambda: chat_streamed("any"))
case("a tool", tool)
case("a tool, streamed", tool_streamed)
case("chat, broken off", lambda: chat_streamed("broken"))
case("embeddings", lambda: json.dumps(o.embeddings.create(model="any", input="x", encoding_format="float").data[0].embedding, separators=(",", ":")))
case("models", lambda: ",".join(m.id for m in o.models.list()))
case("messages", lambda: a.messages.create(model="any", max_tokens=5, messages=said).content[0].text)
case("files", lambda: str(o.files.list()))
case("messages, streamed", messages_streamed)
case("messages, a tool streamed", message_tool)
