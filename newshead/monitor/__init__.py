"""What the price monitor is made of besides TWS and the database."""
