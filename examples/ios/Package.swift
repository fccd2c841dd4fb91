// swift-tools-version:6.0
// Two links stand for ksllm.c and ksllm.h: nothing is copied, and no flag is
// unsafe, so the package may be a dependency of any other.
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
