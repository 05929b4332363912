"""`run_system.py --check`: tries every configured part once and says what works."""
