// swift-tools-version:6.0
// Sources/CKsllm includes ksllm.c and ksllm.h from the top of the tree: nothing
// is copied, and no flag is unsafe, so any other package may depend on this one.
import PackageDescription

let package = Package(
    name: "Ksllm",
    platforms: [.iOS(.v15), .macOS(.v12), .tvOS(.v15), .visionOS(.v1)],
    products: [.library(name: "Ksllm", targets: ["Ksllm"])],
    targets: [
        .target(name: "CKsllm"),
        .target(name: "Ksllm", dependencies: ["CKsllm"]),
    ],
    cLanguageStandard: .gnu11
)
