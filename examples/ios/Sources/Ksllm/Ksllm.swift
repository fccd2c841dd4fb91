// Ksllm.swift - a model and a session of it. Answers are AsyncThrowingStreams;
// leaving the loop, or cancelling the task, ends the answer in milliseconds.
//
//     let model = try Ksllm(path: path)
//     for try await text in model.stream("옛날 옛적에") { print(text) }
//
// ksllm.h is the manual. Calls wait for each other; open the file twice to run
// two, the weights are shared.
import CKsllm
import Dispatch

#if canImport(Darwin)
import Darwin
#endif

public struct KsllmError: Error, Sendable, CustomStringConvertible {
    /// A name of ksllm.h: KSLLM_ERR_FORMAT and so on.
    public let status: String
    public let text: String
    /// The byte of the file, the template or the text where it is wrong.
    public let offset: UInt64?
    public var description: String { "\(status): \(text)" }
}

/// The names are those of ksllm.h.
public struct KsllmOptions: Sendable {
    public var maxTokens: UInt32 = 0
    /// Where nil, the model's file says it.
    public var temperature: Float?
    public var topP: Float?
    public var seed: UInt64 = 0
    public var stop: [String] = []
    /// Seconds. What was said until then is the answer. 0: no limit.
    public var budget = 0.0
    public var maxTokensPerSecond: Float = 0
    public var maxThinking: UInt32 = 0
    public var unit = Unit.character
    public init() {}

    /// What comes at a time of a stream(). An eojeol is a whole word.
    public enum Unit: UInt32, Sendable { case character, grapheme, eojeol }
}

public enum KsllmPart: Sendable, Equatable {
    case text(String)
    case thinking(String)
    /// A call begins; its name.
    case call(String)
    /// A piece of its arguments, JSON.
    case arguments(String)
    case callEnd
    /// Last: the answer as a JSON message, to append to the conversation.
    case message(String)
}

public final class Ksllm: Sendable {
    private let handles: Handles
    private let queue = DispatchQueue(label: "ksllm", qos: .userInitiated)

    /// nCtx: tokens that a conversation may have; 0: what the model was
    /// trained for. nThreads 0: the fast cores.
    public init(path: String, nCtx: UInt32 = 0, nThreads: UInt32 = 0,
                nBatch: UInt32 = 0) throws {
        handles = try Handles(path, nCtx, nThreads, nBatch)
    }

    /// The text that follows a text.
    public func stream(_ prompt: String, _ options: KsllmOptions = .init())
        -> AsyncThrowingStream<String, any Error> {
        answer { [handles] call, put in
            try handles.generate(prompt, options, call, put)
        }
    }

    /// One turn of a conversation, by the model's own template. The messages
    /// and the tools are OpenAI's, as JSON.
    public func chat(_ messages: String, tools: String? = nil,
                     _ options: KsllmOptions = .init())
        -> AsyncThrowingStream<KsllmPart, any Error> {
        answer { [handles] call, put in
            try handles.chat(messages, tools, options, call, put)
        }
    }

    /// Reads the weights once, so that the first answer need not wait for the
    /// flash.
    public func preload() async throws {
        let call = Call()
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation {
                (done: CheckedContinuation<Void, any Error>) in
                queue.async { [handles] in
                    done.resume(with: Result { try handles.preload(call) })
                }
            }
        } onCancel: { call.cancel() }
    }

    /// A text as a JSON string, quotes included: for messages.
    public static func json(_ text: String) -> String {
        withTexts([text]) { texts in
            let t = texts[0]
            let n = Int(ksllm_json_string(t.data, t.size, nil, 0))
            return String(unsafeUninitializedCapacity: n) {
                $0.withMemoryRebound(to: CChar.self) {
                    Int(ksllm_json_string(t.data, t.size, $0.baseAddress, n))
                }
            }
        }
    }

    private func answer<T: Sendable>(
        _ work: @escaping @Sendable (Call, @escaping (T) -> Void) throws -> Void
    ) -> AsyncThrowingStream<T, any Error> {
        AsyncThrowingStream { continuation in
            let call = Call()
            continuation.onTermination = { _ in call.cancel() }
            queue.async {
                do {
                    try work(call) { continuation.yield($0) }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
    }
}

/// One call's flag: a late cancel does not hit the next call.
private final class Call: @unchecked Sendable {
    let flag = UnsafeMutablePointer<ksllm_cancel>.allocate(capacity: 1)

    init() { flag.initialize(to: ksllm_cancel()) }
    deinit { flag.deallocate() }
    func cancel() { ksllm_cancel_set(flag) }    // from any thread
}

/// What C calls back with: it lives as long as the call.
private final class Sink {
    let put: (ksllm_part, String) -> Void
    init(_ put: @escaping (ksllm_part, String) -> Void) { self.put = put }
    var context: UnsafeMutableRawPointer {
        Unmanaged.passUnretained(self).toOpaque()
    }
    static func call(_ context: UnsafeMutableRawPointer?, _ part: ksllm_part,
                     _ text: ksllm_text) -> Int32 {
        let bytes = UnsafeRawBufferPointer(start: text.data, count: text.size)
        Unmanaged<Sink>.fromOpaque(context!).takeUnretainedValue()
            .put(part, String(decoding: bytes, as: UTF8.self))
        return 0
    }
}

/// The two handles of C. Only the queue's calls run the session, one at a
/// time, and each holds this object: it is freed after the last of them.
private final class Handles: @unchecked Sendable {
    let model: OpaquePointer
    let session: OpaquePointer

    init(_ path: String, _ nCtx: UInt32, _ nThreads: UInt32,
         _ nBatch: UInt32) throws {
        var opened: OpaquePointer?, made: OpaquePointer?
        try check { ksllm_model_open(path, nil, &opened, $0) }
        var options = ksllm_session_options()
        ksllm_session_options_init(&options)
        options.n_ctx = nCtx
        options.n_threads = nThreads
        options.n_batch = nBatch
        #if canImport(Darwin)
        // Otherwise they are of the default class, and may be kept off the
        // fast cores.
        options.on_thread = { _, _ in
            _ = pthread_set_qos_class_self_np(QOS_CLASS_USER_INITIATED, 0)
        }
        #endif
        do {
            try check { ksllm_session_create(opened, &options, &made, $0) }
        } catch {
            ksllm_model_close(opened)
            throw error
        }
        model = opened!
        session = made!
    }

    deinit {
        ksllm_session_free(session)
        ksllm_model_close(model)
    }

    func preload(_ call: Call) throws {
        var control = ksllm_control()
        ksllm_control_init(&control)
        control.cancel = UnsafePointer(call.flag)
        try check { ksllm_model_preload(model, &control, $0) }
    }

    func generate(_ prompt: String, _ options: KsllmOptions, _ call: Call,
                  _ put: @escaping (String) -> Void) throws {
        let sink = Sink { _, text in put(text) }
        try with(options, call) { generation in
            try withTexts([prompt]) { texts in
                generation.text = texts[0].data
                generation.text_size = texts[0].size
                generation.piece_ctx = sink.context
                generation.on_piece = { context, piece in
                    let text = piece!.pointee.text
                    return text.size == 0 ? 0
                        : Sink.call(context, KSLLM_PART_TEXT, text)
                }
                try check { ksllm_generate(session, &generation, nil, $0) }
            }
        }
        withExtendedLifetime(sink) {}
    }

    func chat(_ messages: String, _ tools: String?, _ options: KsllmOptions,
              _ call: Call, _ put: @escaping (KsllmPart) -> Void) throws {
        var message = ""
        let sink = Sink { part, text in
            switch part {
            case KSLLM_PART_THINKING: put(.thinking(text))
            case KSLLM_PART_CALL: put(.call(text))
            case KSLLM_PART_ARGUMENTS: put(.arguments(text))
            case KSLLM_PART_CALL_END: put(.callEnd)
            case KSLLM_PART_MESSAGE: message += text
            default: put(.text(text))
            }
        }
        defer { withExtendedLifetime(sink) {} }
        try with(options, call) { generation in
            try withTexts([messages, tools ?? ""]) { texts in
                var chat = ksllm_chat()
                ksllm_chat_init(&chat)
                chat.messages = texts[0]
                if tools != nil { chat.tools = texts[1] }
                try check {
                    ksllm_chat_generate(session, &chat, &generation,
                                        { Sink.call($0, $1, $2) },
                                        sink.context, nil, $0)
                }
            }
        }
        if !message.isEmpty { put(.message(message)) }
    }

    private func with(_ options: KsllmOptions, _ call: Call,
                      _ body: (inout ksllm_generation) throws -> Void) throws {
        var control = ksllm_control(), sampling = ksllm_sampling()
        ksllm_control_init(&control)
        control.cancel = UnsafePointer(call.flag)
        control.budget_us = UInt64(max(0, min(options.budget, 1e9)) * 1e6)
        control.max_tokens_per_second = options.maxTokensPerSecond
        ksllm_sampling_from_model(&sampling, model)
        sampling.seed = options.seed
        if let t = options.temperature { sampling.temperature = t }
        if let p = options.topP { sampling.top_p = p }
        try withTexts(options.stop) { stops in
            try withUnsafePointer(to: &control) { control in
                try withUnsafePointer(to: &sampling) { sampling in
                    var generation = ksllm_generation()
                    ksllm_generation_init(&generation)
                    generation.max_tokens = options.maxTokens
                    generation.max_thinking = options.maxThinking
                    generation.unit = .init(rawValue: options.unit.rawValue)
                    generation.control = control
                    generation.sampling = sampling
                    generation.stop_texts = stops.baseAddress
                    generation.n_stop_texts = stops.count
                    try body(&generation)
                }
            }
        }
    }
}

/// An answer that was cancelled or ran out of time is no error.
private func check(_ function: (UnsafeMutablePointer<ksllm_error>)
                   -> ksllm_status) throws {
    var error = ksllm_error()
    let status = function(&error)
    if status == KSLLM_OK || status == KSLLM_ERR_CANCELLED
        || status == KSLLM_ERR_DEADLINE { return }
    let text = withUnsafeBytes(of: &error.text) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
    throw KsllmError(status: String(cString: ksllm_status_name(status)),
                     text: text,
                     offset: error.offset == KSLLM_NO_OFFSET
                        ? nil : error.offset)
}

/// Strings as C wants them; each also ends with a NUL.
private func withTexts<T>(_ strings: [String],
                          _ body: (UnsafeBufferPointer<ksllm_text>) throws -> T
) rethrows -> T {
    let bytes = strings.flatMap { Array($0.utf8CString) }
    return try bytes.withUnsafeBufferPointer { all in
        var at = 0
        let texts = strings.map { string in
            defer { at += string.utf8.count + 1 }
            return ksllm_text(data: all.baseAddress! + at,
                              size: string.utf8.count)
        }
        return try texts.withUnsafeBufferPointer(body)
    }
}
