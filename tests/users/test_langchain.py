"""test_langchain.py COMMAND... - a server against PyPI's langchain-openai.

COMMAND as for test_http.py. Ends with "N passed, N failed".
"""
import signal
import subprocess
import sys

from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
url = process.stdout.readline().decode().strip()
results = []


@tool
def get_weather(city: str, days: int) -> str:
    """The weather of a city."""
    return "맑음: %s %d" % (city, days)


try:
    model = ChatOpenAI(base_url=url, api_key="x", model="parrot.gguf",
                       max_retries=0)
    text = model.invoke("hi").content
    results.append(text.startswith("안녕하세요"))
    results.append("".join(c.content for c in model.stream("hi")) == text)
    results.append(model.invoke("hi", stop=["반가"]).content
                   == "안녕하세요, ")
    both = model.bind_tools([get_weather])
    asked = both.invoke("weather")
    results.append(asked.tool_calls[0]["args"] == {"city": "서울", "days": 2})
    said = get_weather.invoke(asked.tool_calls[0])
    results.append(isinstance(said, ToolMessage))
    results.append(both.invoke([("user", "weather"), asked, said]).content
                   == "서울은 맑습니다 ☀️")
finally:
    process.send_signal(signal.SIGINT)
    process.wait(10)
print("%d passed, %d failed" % (sum(results), 6 - sum(results)))
sys.exit(not all(results) or len(results) < 6)
