"""test_llamaindex.py COMMAND... - a server against PyPI's
llama-index-llms-openai-like.

COMMAND as for test_http.py. Ends with "N passed, N failed".
"""
import signal
import subprocess
import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
url = process.stdout.readline().decode().strip()
results = []


def get_weather(city: str, days: int) -> str:
    """The weather of a city."""
    return "맑음: %s %d" % (city, days)


try:
    model = OpenAILike(api_base=url, api_key="x", model="parrot.gguf",
                       is_chat_model=True, is_function_calling_model=True,
                       context_window=4096, max_retries=0)
    text = model.complete("hi").text
    results.append(text.startswith("안녕하세요"))
    results.append("".join(
        c.delta or "" for c in model.stream_complete("hi")) == text)
    said = model.chat([ChatMessage(role="system", content="친절하게"),
                       ChatMessage(role="user", content="hi")])
    results.append(said.message.content == text)
    results.append(model.complete("hi", stop=["반가"]).text == "안녕하세요, ")
    asked = model.chat_with_tools(
        [FunctionTool.from_defaults(get_weather)], user_msg="weather")
    calls = model.get_tool_calls_from_response(asked)
    results.append([(c.tool_name, c.tool_kwargs) for c in calls] == [
        ("get_weather", {"city": "서울", "days": 2})])
    said = model.chat([
        ChatMessage(role="user", content="weather"), asked.message,
        ChatMessage(role="tool", content="맑음", additional_kwargs={
            "tool_call_id": calls[0].tool_id})])
    results.append(said.message.content == "서울은 맑습니다 ☀️")
finally:
    process.send_signal(signal.SIGINT)
    process.wait(10)
print("%d passed, %d failed" % (sum(results), 6 - sum(results)))
sys.exit(not all(results) or len(results) < 6)
