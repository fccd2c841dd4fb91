// KsllmTest.swift MODEL - examples/ios on the model of parrot.c. users.sh makes
// a package of it that depends on that one. Ends with "N passed, N failed".
import Foundation
import Ksllm

var passed = 0, failed = 0
let file = CommandLine.arguments[1]
let hello = "안녕하세요, 반가워요 👩‍👩‍👧‍👦🇰🇷! \"따옴표\" \\ and a tab\t<b>.\n"
    + "둘째 줄입니다."
let count = "하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열 "
let tools = "[{\"type\": \"function\", \"function\": "
    + "{\"name\": \"get_weather\", \"description\": \"날씨\", "
    + "\"parameters\": {\"type\": \"object\"}}}]"

@MainActor func check(_ what: String, _ holds: Bool) {
    if holds { passed += 1 } else { failed += 1; print("failed:", what) }
}

func user(_ text: String) -> String {
    "{\"role\": \"user\", \"content\": \(Ksllm.json(text))}"
}

func all<T>(_ stream: AsyncThrowingStream<T, any Error>) async throws -> [T] {
    try await stream.reduce(into: []) { $0.append($1) }
}

func error(_ body: () async throws -> Void) async -> KsllmError? {
    do { try await body() } catch { return error as? KsllmError }
    return nil
}

func status(_ body: () async throws -> Void) async -> String {
    await error(body)?.description ?? "none, or not of ksllm"
}

let model = try Ksllm(path: file, nThreads: 2)
try await model.preload()

// ---- text ----

let clock = ContinuousClock()
let short = try await clock.measure {
    check("text", try await all(model.stream("x")).joined() == hello)
}
// What follows a cancel is another such answer.
let soon = Duration.seconds(1) + short * 3
check("an empty prompt is refused", await status {
    _ = try await all(model.stream("")) }.hasPrefix("KSLLM_ERR"))
var options = KsllmOptions()
options.unit = .eojeol
check("words", try await all(model.stream("x", options)).prefix(3)
    == ["안녕하세요, ", "반가워요 ", "👩‍👩‍👧‍👦🇰🇷! "])
options = KsllmOptions()
options.stop = ["nowhere", "가워"]
check("stop", try await all(model.stream("x", options)).joined()
    == "안녕하세요, 반")
options = KsllmOptions()
options.budget = 0.1
let said = try await all(model.stream("#", options)).joined()
check("budget", said.count < 2000 && String(repeating: count, count: 100)
    .hasPrefix(said.replacingOccurrences(of: "\u{FFFD}", with: "")))
options = KsllmOptions()
options.temperature = -1
check("an error comes out", await status {
    _ = try await all(model.stream("x", options)) }
    .hasPrefix("KSLLM_ERR_ARGUMENT: "))
let noFile = await error { _ = try Ksllm(path: "/no/파일🙂.gguf") }
check("no file", noFile?.text.contains("파일🙂") == true)
check("it has no offset", noFile?.offset == nil)
check("json", Ksllm.json("\"따옴표\"\n🙂") == "\"\\\"따옴표\\\"\\n🙂\"")

// ---- a conversation ----

let thinks = try await all(model.chat("[\(user("think"))]"))
check("thinking", thinks.first.map {
    if case .thinking = $0 { true } else { false } } == true)
check("text after it", thinks.contains {
    if case .text(let text) = $0 { "답은 둘입니다.".hasPrefix(text) }
    else { false } })
let parts = try await all(model.chat("[\(user("weather"))]", tools: tools))
check("a call", parts.first == .call("get_weather") && parts.contains(.callEnd))
var arguments = "", message = ""
for part in parts {
    if case .arguments(let text) = part { arguments += text }
    if case .message(let text) = part { message = text }
}
check("arguments", arguments == "{\"city\": \"서울\", \"days\": 2}")
let turn = "[\(user("weather")), \(message), "
    + "{\"role\": \"tool\", \"content\": \"맑음\"}]"
check("its result", try await all(model.chat(turn, tools: tools))
    .contains { if case .text = $0 { true } else { false } })
let wrong = await error { _ = try await all(model.chat("[{")) }
check("wrong messages", wrong?.status == "KSLLM_ERR_ARGUMENT")
check("where they are wrong", wrong?.offset == 2)

// ---- ending it ----

let left = try await clock.measure {
    for try await _ in model.stream("#") { break }
    check("after leaving", try await all(model.stream("x")).joined() == hello)
}
check("leaving a loop ends the answer", left < soon)

let (begun, first) = AsyncStream.makeStream(of: Void.self)
let task = Task {
    var n = 0
    for try await _ in model.stream("#") {
        n += 1
        first.yield()
    }
    return n
}
for await _ in begun { break }
let late = try await clock.measure {
    task.cancel()
    check("pieces until the cancel", try await task.value > 0)
    check("after a cancel", try await all(model.stream("x")).joined() == hello)
}
print("cancel and a short answer: \(late)")
check("a cancelled task", late < soon)

// Calls wait for each other; a model that nobody holds lives as long as its
// answer is read.
await withTaskGroup(of: Bool.self) { group in
    for _ in 0 ..< 4 {
        group.addTask {
            (try? await all(model.stream("x")).joined()) == hello
        }
    }
    for await same in group { check("at the same time", same) }
}
let orphan = try Ksllm(path: file, nCtx: 256, nThreads: 1).stream("x")
check("an answer keeps its model", try await all(orphan).joined() == hello)

print("\(passed) passed, \(failed) failed")
exit(failed == 0 ? 0 : 1)
