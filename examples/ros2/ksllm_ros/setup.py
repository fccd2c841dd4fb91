from setuptools import setup

setup(
    name="ksllm_ros",
    version="0.2.0",
    packages=["ksllm_ros"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/ksllm_ros"]),
        ("share/ksllm_ros", ["package.xml"])],
    install_requires=["setuptools"],
    license="MIT",
    entry_points={"console_scripts": ["node = ksllm_ros.node:main"]},
)
